//! Floating-point operations of the networks, from their sizes alone.

/// Floating-point operations; a multiplication and an addition are two.
///
/// Norms, activations, sums and softmax are not counted: they are memory traffic more than arithmetic, and no rate of
/// multiply-adds says how fast they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Of convolutions.
    pub convolution: u64,
    /// Of fully connected layers.
    pub linear: u64,
    /// Of the products of attention: scores, and weighted values.
    pub attention: u64,
}

impl Operations {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.convolution + self.linear + self.attention
    }

    /// With a way back to the input through frozen weights, as in the training of adapters: as much again for the
    /// gradient of each layer's input, and twice as much for attention, whose three operands all have one.
    ///
    /// What is computed again to save memory is not counted (as in "model FLOPs", Chowdhery et al. 2022,
    /// arXiv:2204.02311, appendix B), nor is what small factors of adapters take. Layers before the first adapter have
    /// no way back and are counted all the same.
    #[must_use]
    pub fn with_gradients(&self) -> Self {
        Self { convolution: 2 * self.convolution, linear: 2 * self.linear, attention: 3 * self.attention }
    }

    /// A convolution that gives so many pixels, of all images together.
    pub(crate) fn convolve(&mut self, pixels: usize, kernel: usize, inputs: usize, outputs: usize) {
        self.convolution += product(&[2, pixels, kernel, kernel, inputs, outputs]);
    }

    /// A fully connected layer on so many rows.
    pub(crate) fn connect(&mut self, rows: usize, inputs: usize, outputs: usize) {
        self.linear += product(&[2, rows, inputs, outputs]);
    }

    /// Attention of queries to keys in each image of a batch; `channels` of all heads together.
    pub(crate) fn attend(&mut self, batch: usize, queries: usize, keys: usize, channels: usize) {
        self.attention += product(&[4, batch, queries, keys, channels]);
    }

    /// The convolutions of a residual block.
    pub(crate) fn resnet(&mut self, pixels: usize, inputs: usize, outputs: usize) {
        self.convolve(pixels, 3, inputs, outputs);
        self.convolve(pixels, 3, outputs, outputs);
        if inputs != outputs {
            self.convolve(pixels, 1, inputs, outputs);
        }
    }
}

impl std::ops::AddAssign for Operations {
    fn add_assign(&mut self, other: Self) {
        self.convolution += other.convolution;
        self.linear += other.linear;
        self.attention += other.attention;
    }
}

fn product(factors: &[usize]) -> u64 {
    factors.iter().map(|f| *f as u64).product()
}
