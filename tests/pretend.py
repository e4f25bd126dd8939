"""A pretend accelerator: a device of its own whose numbers lie in CPU memory.

Tensors on it refuse to meet CPU tensors, as on a GPU, and what is read back to the host is counted in `reads`; all
operations are counted in `ops`. Use it in a process of its own: it changes torch for good.

>>> import pretend  # doctest: +SKIP
>>> pretend.on(), torch.zeros(3).to("pretend")  # doctest: +SKIP
"""

from collections import Counter

import torch
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
READS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::item"}  # give the host a number
MOVES = {"aten::_to_copy", "aten::copy_", "aten::_copy_from"}
reads, ops = Counter(), Counter()


class PretendTensor(torch.Tensor):
    @staticmethod
    def __new__(cls, raw, requires_grad=False):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
            requires_grad=requires_grad,
            dispatch_sizes_strides_policy=None,
        )
        tensor.raw = raw.detach()
        return tensor

    def __repr__(self):
        return f"pretend({self.raw})"

    def tolist(self):
        reads["tolist"] += 1
        return self.raw.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, *args, **(kwargs or {}))


def unwrap(x):
    return x.raw if isinstance(x, PretendTensor) else x


def wrap(x):
    return PretendTensor(x) if isinstance(x, torch.Tensor) and not isinstance(x, PretendTensor) else x


def run(func, *args, **kwargs):
    """Do one operation on the numbers behind the tensors."""
    name = func._schema.name
    ops[name] += 1
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    ours = [x for x in tensors if isinstance(x, PretendTensor)]
    strangers = any(x.dim() > 0 for x in tensors if not isinstance(x, PretendTensor))
    if ours and strangers and name not in MOVES and not name.startswith("aten::index"):  # which CPU indices may do
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {NAME} and cpu ({name})")
    plain_args, plain = tree_map(unwrap, args), tree_map(unwrap, dict(kwargs))
    if plain.get("device") is not None:
        plain["device"] = torch.device("cpu")
    if plain.get("pin_memory"):
        plain["pin_memory"] = False
    if name in READS or name == "aten::nonzero":
        reads[name] += 1
    out = func(*plain_args, **plain)
    if name in READS:
        return out
    if name == "aten::_to_copy":
        to = kwargs.get("device")
        if to is not None and torch.device(to).type == "cpu":
            reads[name] += 1
            return out
        return wrap(out) if ours or to is not None else out
    if name == "aten::copy_":
        return args[0]
    if func._schema.is_mutable and args and isinstance(args[0], PretendTensor):  # in place: the same wrapper
        if out is None:
            return None
        if out is plain_args[0]:
            return args[0]
    return tree_map(wrap, out)


def _made(make, data, dtype, device, **options):
    if device is not None and torch.device(device).type == NAME:
        if isinstance(data, PretendTensor):
            return data.to(dtype) if dtype else data
        return make(data, dtype=dtype, **options).to(torch.device(NAME, 0))
    if isinstance(data, PretendTensor) and device is None:
        return data.to(dtype) if dtype else data
    return make(data, dtype=dtype, device=device, **options)


def on():
    """Add the device to torch."""
    if "library" in globals():
        return
    _setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda func, *args, **kwargs: run(func, *args, **kwargs), "PrivateUse1")
    globals()["library"] = library
    as_tensor, tensor = torch.as_tensor, torch.tensor
    torch.as_tensor = lambda data, dtype=None, device=None: _made(as_tensor, data, dtype, device)
    torch.tensor = lambda data, *, dtype=None, device=None, **options: _made(tensor, data, dtype, device, **options)
