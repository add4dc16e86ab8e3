"""A tower's other way through it, and when it is taken.

Letters: N views, S pixels a side.
"""

from collections.abc import Callable

from torch import Tensor, nn


class Intact:
    """A tower's other way while its modules are those that it was made for: an adapter around one of them, another
    activation, a block that is compiled, or a hook that wants to see what a module gives, goes through the modules.

    Args:
        path: the other way.
        plain: the tower's own.
        tower: whose layers these are.
    """

    def __init__(self, path: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor], tower: nn.Module) -> None:
        self._path, self._plain = path, plain
        self._modules = [  # where it is held, its name there, the module
            (module._modules, name, child) for module in tower.modules() for name, child in module.named_children()
        ]

    def clear(self) -> None:
        """Gives back the memory of what the other way has recorded."""
        clear = getattr(self._path, "clear", None)
        if clear is not None:
            clear()

    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) -> what the tower gives."""
        same = all(
            held.get(name) is child
            and child._compiled_call_impl is None
            and not child._forward_hooks
            and not child._forward_pre_hooks
            for held, name, child in self._modules
        )
        return self._path(pixels) if same else self._plain(pixels)
