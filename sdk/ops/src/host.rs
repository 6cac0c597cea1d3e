//! Access to the f32 data of CPU tensors, and the choice between our kernels and the composed path.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};
use std::cell::RefCell;

/// Whether the tensor is computed by our CPU kernels (else by a composition of candle operations). Those need not
/// think of empty tensors.
pub(crate) fn is_native(x: &Tensor) -> bool {
    matches!(x.device(), Device::Cpu)
        && matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16)
        && x.elem_count() > 0
}

/// The tensor as contiguous f32, as the kernels want it. Differentiable; free if it already is.
pub(crate) fn prepare(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::F32)?.contiguous()
}

/// The elements of a contiguous f32 operand of a custom operation.
pub(crate) fn elements<'a>(storage: &'a CpuStorage, layout: &Layout, op: &str) -> Result<&'a [f32]> {
    let CpuStorage::F32(data) = storage else {
        bail!("{op}: the kernel takes f32, got {:?}", storage.dtype())
    };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("{op}: the kernel takes contiguous tensors, got strides {:?}", layout.stride()),
    }
}

/// Lends the f32 elements of a CPU tensor to `f`, in row-major order.
pub(crate) fn with<R>(x: &Tensor, op: &str, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let x = prepare(x)?;
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => f(elements(cpu, layout, op)?),
        _ => bail!("{op}: the kernel runs on the CPU only"),
    }
}

/// Wraps a result of a kernel.
pub(crate) fn output(data: Vec<f32>, shape: impl Into<Shape>) -> (CpuStorage, Shape) {
    (CpuStorage::F32(data), shape.into())
}

/// A result slice that rayon tasks share; each task writes elements no other task touches.
#[derive(Clone, Copy)]
pub(crate) struct Shared {
    ptr: *mut f32,
    len: usize,
}

// SAFETY: the pointer is only dereferenced through the unsafe methods below, whose callers promise disjointness.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(data: &mut [f32]) -> Self {
        Self { ptr: data.as_mut_ptr(), len: data.len() }
    }

    /// The elements `start..start + len`.
    ///
    /// # Safety
    /// No other task reads or writes them while the slice lives, and the underlying data outlives it.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(start + len <= self.len, "slice {start}+{len} of {}", self.len);
        // SAFETY: in bounds by the assertion, exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(start), len) }
    }

    /// Pointer to element `start`, with the bound checked for a matrix reaching `last`.
    pub(crate) fn pointer(&self, start: usize, last: usize) -> *mut f32 {
        assert!(start + last < self.len, "matrix up to {start}+{last} of {}", self.len);
        self.ptr.wrapping_add(start)
    }
}

/// A line of the caches, and the widest register: no vector of memory that begins with one lies in two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A vector of `len` numbers as `f` leaves them. Nobody fills it with zeros before.
///
/// # Safety
/// `f` writes every number, and reads none that it has not written.
pub(crate) unsafe fn written(len: usize, f: impl FnOnce(Shared)) -> Vec<f32> {
    let mut data = Vec::with_capacity(len);
    f(Shared { ptr: data.as_mut_ptr(), len });
    // SAFETY: there is room for them, and all were written.
    unsafe { data.set_len(len) };
    data
}

thread_local! {
    static SCRATCH: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` floats of this thread's scratch memory, contents unspecified, from the start of a line on.
///
/// The memory stays with the thread, so that a network's hundreds of calls do not fault its pages in anew; so does that of
/// a nested call.
pub(crate) fn scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    // Taken out of the cell, not borrowed: a nested call on the same thread then gets memory of its own. As the outer call
    // gives its memory back last, it is the first to be taken again.
    let mut memory = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    let lines = len.div_ceil(16);
    if memory.len() < lines {
        // No more than is asked for: growing by itself, a vector takes up to twice as much, and copies what nobody reads.
        memory = Vec::new();
        memory.reserve_exact(lines);
        memory.resize(lines, Line([0.0; 16]));
    }
    // SAFETY: lines are floats without gaps, and there are enough of them.
    let result = f(unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), len) });
    SCRATCH.with_borrow_mut(|all| all.push(memory));
    result
}

/// How many jobs a kernel should cut its work into, so that threads of unequal speed finish together.
pub(crate) fn wanted_jobs() -> usize {
    let threads = rayon::current_num_threads();
    if threads == 1 { 1 } else { 4 * threads }
}

/// Cuts `total` into blocks of at most `size`: (start, length) of each.
pub(crate) fn blocks(total: usize, size: usize) -> Vec<(usize, usize)> {
    let size = size.max(1);
    (0..total.div_ceil(size)).map(|i| (i * size, size.min(total - i * size))).collect()
}
