"""The linear operators of StyleGAN2: convolution and FIR resampling, in plain PyTorch.

Each operator's derivative is written with the other operators of this file, so first and second derivatives
(R1, path length) run on the same fast kernels. PyTorch's own double backward of a convolution builds a
convolution whose kernel is the whole feature map; in bfloat16 that is slow on every CPU and wrong on some.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

FIR_TAPS = (1.0, 3.0, 3.0, 1.0)  # the binomial low-pass of StyleGAN2, applied separably


# --- convolution: y = x * k, with derivatives that are convolutions again -------------------------------


def conv2d(x: Tensor, kernel: Tensor, *, stride: int = 1, padding: int = 0, transposed: bool = False) -> Tensor:
    """Convolve `x` (n, i, h, w) with `kernel` (o, i, k, k); no bias, twice differentiable in both arguments.

    With `transposed=True` the kernel is still (o, i, k, k): the adjoint of a strided convolution maps i to o
    channels and multiplies the size by `stride`, here to (h - 1) * stride + k - 2 * padding.
    """
    if transposed:
        kernel = kernel.transpose(0, 1)  # PyTorch stores the transposed kernel as (i, o, k, k)
    return _Conv.apply(x, kernel, (stride, padding, transposed))


def _convolution_args(spec: tuple[int, int, bool]) -> tuple:
    stride, padding, transposed = spec
    return [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1


class _Conv(Function):
    """y(x, k), bilinear in x and k."""

    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, spec: tuple[int, int, bool]) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.spec = spec
        return torch.convolution(x, kernel, None, *_convolution_args(spec))

    @staticmethod
    def backward(ctx, grad_y: Tensor):
        x, kernel = ctx.saved_tensors
        needs_x, needs_kernel, _ = ctx.needs_input_grad
        grad_x = _ConvInputGrad.apply(grad_y, kernel, x.shape, ctx.spec) if needs_x else None
        grad_kernel = _ConvKernelGrad.apply(grad_y, x, kernel.shape, ctx.spec) if needs_kernel else None
        return grad_x, grad_kernel, None


class _ConvInputGrad(Function):
    """dL/dx(dL/dy, k): the adjoint of the convolution in x, bilinear in dL/dy and k."""

    @staticmethod
    def forward(ctx, grad_y: Tensor, kernel: Tensor, x_shape: torch.Size, spec: tuple[int, int, bool]) -> Tensor:
        ctx.save_for_backward(grad_y, kernel)
        ctx.spec = spec
        return _convolution_backward(grad_y, _shape_only(grad_y, x_shape), kernel, spec, 0)

    @staticmethod
    def backward(ctx, grad_grad_x: Tensor):
        grad_y, kernel = ctx.saved_tensors
        needs_grad_y, needs_kernel, *_ = ctx.needs_input_grad
        grad_grad_y = _Conv.apply(grad_grad_x, kernel, ctx.spec) if needs_grad_y else None
        grad_kernel = _ConvKernelGrad.apply(grad_y, grad_grad_x, kernel.shape, ctx.spec) if needs_kernel else None
        return grad_grad_y, grad_kernel, None, None


class _ConvKernelGrad(Function):
    """dL/dk(dL/dy, x): correlation of x with dL/dy, bilinear in both."""

    @staticmethod
    def forward(ctx, grad_y: Tensor, x: Tensor, kernel_shape: torch.Size, spec: tuple[int, int, bool]) -> Tensor:
        ctx.save_for_backward(grad_y, x)
        ctx.spec = spec
        return _convolution_backward(grad_y, x, _shape_only(grad_y, kernel_shape), spec, 1)

    @staticmethod
    def backward(ctx, grad_grad_kernel: Tensor):
        grad_y, x = ctx.saved_tensors
        needs_grad_y, needs_x, *_ = ctx.needs_input_grad
        grad_grad_y = _Conv.apply(x, grad_grad_kernel, ctx.spec) if needs_grad_y else None
        grad_x = _ConvInputGrad.apply(grad_y, grad_grad_kernel, x.shape, ctx.spec) if needs_x else None
        return grad_grad_y, grad_x, None, None


def _convolution_backward(
    grad_y: Tensor, x: Tensor, kernel: Tensor, spec: tuple[int, int, bool], which: int
) -> Tensor:
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
        taps = torch.tensor(FIR_TAPS, device=x.device)
        kernel = (torch.outer(taps, taps) * (gain / taps.sum() ** 2)).expand(x.shape[1], 1, 4, 4)
        if up == 2:  # bfloat16 depthwise transposed convolutions have no fast kernel on CPUs
            y = F.conv_transpose2d(x.float(), kernel, stride=2, padding=padding, groups=x.shape[1])
            return y.to(x.dtype)
        return F.conv2d(x, kernel.to(x.dtype), stride=down, padding=padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx, grad_y: Tensor):
        up, down, padding, gain = ctx.args
        adjoint_padding = padding if up != down else 3 - padding
        return _Fir.apply(grad_y, down, up, adjoint_padding, gain), None, None, None, None
