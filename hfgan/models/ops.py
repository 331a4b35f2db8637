"""The linear operators of StyleGAN2: convolution and FIR resampling, in plain PyTorch.

Each operator's derivative is written with the other operators of this file, so first and second derivatives
(R1, path length) run on the same fast kernels. PyTorch's own double backward of a convolution builds a
convolution whose kernel is the whole feature map; in bfloat16 that is slow on every CPU and wrong on some.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

FIR = [[a * b / 64 for a in (1, 3, 3, 1)] for b in (1, 3, 3, 1)]  # the binomial low-pass of StyleGAN2, sum 1


# --- convolution: y = x * k, with derivatives that are convolutions again -------------------------------


Spec = tuple[int, int, bool]  # stride, padding, transposed


def conv2d(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    transposed: bool = False,
) -> Tensor:
    """Convolve `x` (n, i, h, w) with `kernel` (o, i, k, k), add `bias` (o,); twice differentiable in all three.

    With `transposed=True`, the adjoint of a strided convolution, the kernel is (i, o, k, k) as PyTorch has it
    and the size becomes (h - 1) * stride + k - 2 * padding.
    """
    return _conv2d(x, kernel, bias, (stride, padding, transposed))


def _conv2d(x: Tensor, kernel: Tensor, bias: Tensor | None, spec: Spec) -> Tensor:
    if not torch.is_grad_enabled():
        return torch.convolution(x, kernel, bias, *_convolution_args(spec))
    return _Conv.apply(x, kernel, bias, _KernelLink.apply(kernel, bias, (x,), spec), spec)


def _convolution_args(spec: Spec) -> tuple:
    stride, padding, transposed = spec
    return [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1


class _Conv(Function):
    """y(x, k, b) = x * k + b with its gradient in x; those in k and b take the way of `link`."""

    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, bias: Tensor | None, link: Tensor, spec: Spec) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.x_shape, ctx.spec = x.shape, spec
        return torch.convolution(x, kernel, bias, *_convolution_args(spec))

    @staticmethod
    def backward(ctx, grad_y: Tensor):
        (kernel,) = ctx.saved_tensors
        needs_x, _, _, needs_link, _ = ctx.needs_input_grad
        grad_x = _ConvInputGrad.apply(grad_y, kernel, ctx.x_shape, ctx.spec) if needs_x else None
        return grad_x, None, None, grad_y if needs_link else None, None


class _KernelLink(Function):
    """A zero of y's shape that takes no memory, through which dL/dy reaches kernel and bias.

    R1 and path length first ask for dL/dx alone. Autograd then leaves out whole nodes, so the gradient of the
    kernel has a node to itself, without an edge to x (which therefore comes in a tuple).
    """

    @staticmethod
    def forward(ctx, kernel: Tensor, bias: Tensor | None, boxed_x: tuple[Tensor], spec: Spec) -> Tensor:
        (x,) = boxed_x
        ctx.save_for_backward(x)
        ctx.kernel_shape, ctx.spec = kernel.shape, spec
        return x.new_zeros(()).expand(_output_shape(x.shape, kernel.shape, spec))

    @staticmethod
    def backward(ctx, grad_y: Tensor):
        (x,) = ctx.saved_tensors
        needs_kernel, needs_bias, *_ = ctx.needs_input_grad
        grad_kernel = _ConvKernelGrad.apply(grad_y, x, ctx.kernel_shape, ctx.spec) if needs_kernel else None
        return grad_kernel, grad_y.sum(dim=(0, 2, 3)) if needs_bias else None, None, None


def _output_shape(x_shape: torch.Size, kernel_shape: torch.Size, spec: Spec) -> tuple[int, ...]:
    stride, padding, transposed = spec
    size = kernel_shape[-1]
    if transposed:
        return x_shape[0], kernel_shape[1], *((side - 1) * stride + size - 2 * padding for side in x_shape[2:])
    return x_shape[0], kernel_shape[0], *((side + 2 * padding - size) // stride + 1 for side in x_shape[2:])


class _ConvInputGrad(Function):
    """dL/dx(dL/dy, k): the adjoint of the convolution in x, bilinear in dL/dy and k."""

    @staticmethod
    def forward(ctx, grad_y: Tensor, kernel: Tensor, x_shape: torch.Size, spec: Spec) -> Tensor:
        ctx.save_for_backward(grad_y, kernel)
        ctx.spec = spec
        return _convolution_backward(grad_y, _shape_only(grad_y, x_shape), kernel, spec, 0)

    @staticmethod
    def backward(ctx, grad_grad_x: Tensor):
        grad_y, kernel = ctx.saved_tensors
        needs_grad_y, needs_kernel, *_ = ctx.needs_input_grad
        grad_grad_y = _conv2d(grad_grad_x, kernel, None, ctx.spec) if needs_grad_y else None
        grad_kernel = _ConvKernelGrad.apply(grad_y, grad_grad_x, kernel.shape, ctx.spec) if needs_kernel else None
        return grad_grad_y, grad_kernel, None, None


class _ConvKernelGrad(Function):
    """dL/dk(dL/dy, x): correlation of x with dL/dy, bilinear in both."""

    @staticmethod
    def forward(ctx, grad_y: Tensor, x: Tensor, kernel_shape: torch.Size, spec: Spec) -> Tensor:
        ctx.save_for_backward(grad_y, x)
        ctx.spec = spec
        return _convolution_backward(grad_y, x, _shape_only(grad_y, kernel_shape), spec, 1)

    @staticmethod
    def backward(ctx, grad_grad_kernel: Tensor):
        grad_y, x = ctx.saved_tensors
        needs_grad_y, needs_x, *_ = ctx.needs_input_grad
        grad_grad_y = _conv2d(x, grad_grad_kernel, None, ctx.spec) if needs_grad_y else None
        grad_x = _ConvInputGrad.apply(grad_y, grad_grad_kernel, x.shape, ctx.spec) if needs_x else None
        return grad_grad_y, grad_x, None, None


def _convolution_backward(grad_y: Tensor, x: Tensor, kernel: Tensor, spec: Spec, which: int) -> Tensor:
    wanted = [which == 0, which == 1, False]
    return torch.ops.aten.convolution_backward(grad_y, x, kernel, None, *_convolution_args(spec), wanted)[which]


def _shape_only(like: Tensor, shape: torch.Size) -> Tensor:
    # the kernel reads only the shape and layout of this argument
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


# --- FIR resampling: depthwise low-pass, its adjoint is itself with up and down exchanged ------------------


def blur(x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """Low-pass `x` (n, c, h, w) with the 4x4 binomial filter: (n, c, h + 2 * padding - 3, ...), zeros outside."""
    return _Fir.apply(x, 1, 1, padding, gain)


def downsample(x: Tensor) -> Tensor:
    """Low-pass and keep every second pixel: (n, c, 2h, 2w) to (n, c, h, w)."""
    return _Fir.apply(x, 1, 2, 1, 1.0)


def upsample(x: Tensor) -> Tensor:
    """Insert zeros, low-pass with gain 4: (n, c, h, w) to (n, c, 2h, 2w)."""
    return _Fir.apply(x, 2, 1, 1, 4.0)


class _Fir(Function):
    """Depthwise 4x4 FIR with up- or downsampling by 2; linear in x, so its derivative is its adjoint."""

    @staticmethod
    def forward(ctx, x: Tensor, up: int, down: int, padding: int, gain: float) -> Tensor:
        ctx.args = up, down, padding, gain
        channels = x.shape[1]
        traced = torch.compiler.is_compiling() or type(x) is not Tensor
        make = _fir_kernel.__wrapped__ if traced else _fir_kernel  # what is made while tracing cannot be kept
        kernel = make(gain, x.dtype, x.device).expand(channels, 1, 4, 4)
        if up == 1:
            return F.conv2d(x, kernel, stride=down, padding=padding, groups=channels)
        if x.dtype.itemsize > 2:
            return F.conv_transpose2d(x, kernel, stride=2, padding=padding, groups=channels)
        return F.conv2d(_insert_zeros(x), kernel, padding=3 - padding, groups=channels)

    @staticmethod
    def backward(ctx, grad_y: Tensor):
        up, down, padding, gain = ctx.args
        adjoint_padding = padding if up != down else 3 - padding
        return _Fir.apply(grad_y, down, up, adjoint_padding, gain), None, None, None, None


@functools.cache
def _fir_kernel(gain: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The 4x4 filter, made once: each copy to a GPU would wait until all that was asked of it before is done."""
    with torch.inference_mode(False):
        return torch.tensor(FIR, dtype=dtype, device=device) * gain


def _insert_zeros(x: Tensor) -> Tensor:
    """(n, c, h, w) to (n, c, 2h - 1, 2w - 1); half-precision depthwise transposed convolutions are slow on CPUs."""
    n, c, h, w = x.shape
    spread = x.new_zeros(n, 2 * h - 1, 2 * w - 1, c).permute(0, 3, 1, 2)  # channels_last
    spread[:, :, ::2, ::2] = x
    return spread
