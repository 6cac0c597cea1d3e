//! Vectors of 16 words in registers.

/// A vector in registers. The methods may be called only where the processor has the type's instructions, from code
/// compiled for them: they are inlined there.
pub(super) trait Register: Copy {
    /// The words of a panel for one step.
    type Left: Copy;

    /// One of them, as it is multiplied.
    type Word: Copy;

    /// # Safety
    /// The instructions are there.
    unsafe fn zero() -> Self;

    /// # Safety
    /// The instructions are there; 16 words can be read.
    unsafe fn load(from: *const f32) -> Self;

    /// # Safety
    /// The instructions are there; the words of `R` rows can be read for as long as the result is used.
    unsafe fn left<const R: usize>(from: *const f32) -> Self::Left;

    /// The word of a row that was among those of [`Self::left`].
    ///
    /// # Safety
    /// The instructions are there.
    unsafe fn word<const ROW: usize>(left: Self::Left) -> Self::Word;

    /// `self + a b` for one step.
    ///
    /// # Safety
    /// The instructions are there.
    unsafe fn multiply_add(self, a: Self::Word, b: Self) -> Self;

    /// # Safety
    /// The instructions are there; 16 floats can be written.
    unsafe fn store(self, to: *mut f32);
}
