//! How much there is to compute.

use super::SHALLOW;
use super::config::UNetConfig;
use crate::operations::Operations;

impl UNetConfig {
    /// Operations of one prediction for a batch of latents (height, width) under contexts of so many tokens.
    pub fn operations(&self, batch: usize, (height, width): (usize, usize), tokens: usize) -> Operations {
        let mut count = Count { config: self, batch, tokens, sum: Operations::default() };
        count.network((height, width));
        count.sum
    }

    /// Operations of a prediction with the features of another step, as [`Self::operations`] counts them.
    pub fn shallow_operations(
        &self,
        batch: usize,
        (height, width): (usize, usize),
        tokens: usize,
    ) -> Operations {
        let mut count = Count { config: self, batch, tokens, sum: Operations::default() };
        count.shallow((height, width));
        count.sum
    }

    /// The size of an image after it was halved.
    fn halved(&self, (height, width): (usize, usize)) -> (usize, usize) {
        let half = |n: usize| if self.downsample_padding == 0 { n / 2 } else { n.div_ceil(2) };
        (half(height), half(width))
    }
}

struct Count<'a> {
    config: &'a UNetConfig,
    batch: usize,
    tokens: usize,
    sum: Operations,
}

impl Count<'_> {
    /// What every prediction begins and ends with.
    fn ends(&mut self, size: (usize, usize)) {
        let c = self.config;
        let outer = c.block_out_channels[0];
        self.sum.convolve(self.pixels(size), c.conv_in_kernel, c.in_channels, outer);
        self.sum.connect(self.batch, outer, c.time_embedding_dim);
        self.sum.connect(self.batch, c.time_embedding_dim, c.time_embedding_dim);
        self.sum.convolve(self.pixels(size), c.conv_out_kernel, outer, c.out_channels);
    }

    fn shallow(&mut self, size: (usize, usize)) {
        self.ends(size);
        self.down_layer(0, 0, size);
        let (last, layers) = (self.config.block_out_channels.len() - 1, self.config.layers_per_block[0] + 1);
        (layers - SHALLOW..layers).for_each(|layer| self.up_layer(last, layer, size));
    }

    fn network(&mut self, size: (usize, usize)) {
        let c = self.config;
        self.ends(size);
        // The size that each block works at, outermost first.
        let mut sizes = vec![size];
        for block in 0..c.block_out_channels.len() {
            self.down(block, &mut sizes);
        }
        let last = c.block_out_channels.len() - 1;
        let (channels, innermost) = (c.block_out_channels[last], sizes[last]);
        self.resnet(innermost, channels, channels);
        self.transformer(innermost, last, c.transformer_layers[last]);
        self.resnet(innermost, channels, channels);
        for index in 0..=last {
            self.up(index, &sizes);
        }
    }

    fn down(&mut self, block: usize, sizes: &mut Vec<(usize, usize)>) {
        let c = self.config;
        let (size, outputs) = (sizes[block], c.block_out_channels[block]);
        (0..c.layers_per_block[block]).for_each(|layer| self.down_layer(block, layer, size));
        if block + 1 < c.block_out_channels.len() {
            let half = c.halved(size);
            self.sum.convolve(self.pixels(half), 3, outputs, outputs);
            sizes.push(half);
        }
    }

    fn down_layer(&mut self, block: usize, layer: usize, size: (usize, usize)) {
        let c = self.config;
        let before = if layer == 0 { block.saturating_sub(1) } else { block };
        self.resnet(size, c.block_out_channels[before], c.block_out_channels[block]);
        if c.down_attention[block] {
            self.transformer(size, block, c.transformer_layers[block]);
        }
    }

    /// `index` counts from the innermost.
    fn up(&mut self, index: usize, sizes: &[(usize, usize)]) {
        let c = self.config;
        let last = c.block_out_channels.len() - 1;
        let block = last - index;
        (0..=c.layers_per_block[block]).for_each(|layer| self.up_layer(index, layer, sizes[block]));
        if block > 0 {
            let outputs = c.block_out_channels[block];
            self.sum.convolve(self.pixels(sizes[block - 1]), 3, outputs, outputs);
        }
    }

    fn up_layer(&mut self, index: usize, layer: usize, size: (usize, usize)) {
        let c = self.config;
        let last = c.block_out_channels.len() - 1;
        let block = last - index;
        let outputs = c.block_out_channels[block];
        let below = c.block_out_channels[(block + 1).min(last)];
        let above = c.block_out_channels[block.saturating_sub(1)];
        let inputs = if layer == 0 { below } else { outputs };
        let skip = if layer == c.layers_per_block[block] { above } else { outputs };
        self.resnet(size, inputs + skip, outputs);
        if c.up_attention[index] {
            self.transformer(size, block, c.up_transformer_layers[index]);
        }
    }

    fn resnet(&mut self, size: (usize, usize), inputs: usize, outputs: usize) {
        self.sum.resnet(self.pixels(size), inputs, outputs);
        self.sum.connect(self.batch, self.config.time_embedding_dim, outputs);
    }

    fn transformer(&mut self, (height, width): (usize, usize), block: usize, layers: usize) {
        let (c, batch, queries) = (self.config, self.batch, height * width);
        let (channels, context) = (c.block_out_channels[block], c.cross_attention_dim[block]);
        let rows = batch * queries;
        // Counted as what the checkpoint has: on tokens both are the same arithmetic.
        for _ in ["proj_in", "proj_out"] {
            if c.use_linear_projection {
                self.sum.connect(rows, channels, channels);
            } else {
                self.sum.convolve(rows, 1, channels, channels);
            }
        }
        for _ in 0..layers {
            // to_q, to_k, to_v and to_out of the attention to the image; to_q and to_out of that to the context.
            (0..6).for_each(|_| self.sum.connect(rows, channels, channels));
            (0..2).for_each(|_| self.sum.connect(batch * self.tokens, context, channels));
            self.sum.attend(batch, queries, queries, channels);
            self.sum.attend(batch, queries, self.tokens, channels);
            self.sum.connect(rows, channels, 8 * channels);
            self.sum.connect(rows, 4 * channels, channels);
        }
    }

    fn pixels(&self, (height, width): (usize, usize)) -> usize {
        self.batch * height * width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn giga(operations: u64) -> f64 {
        operations as f64 / 1e9
    }

    #[test]
    fn a_guided_step_of_stable_diffusion_1_takes_what_is_published() {
        let sd = UNetConfig::sd15();
        for (side, want) in [(32, 360.0), (64, 1606.0), (96, 4296.0)] {
            let got = giga(sd.operations(2, (side, side), 77).total());
            assert!((got - want).abs() < 1.0, "{side}: {got}");
        }
        let parts = sd.operations(2, (64, 64), 77);
        for (got, want) in [(parts.convolution, 888.0), (parts.linear, 467.0), (parts.attention, 252.0)] {
            assert!((giga(got) - want).abs() < 1.0, "{parts:?}");
        }
    }

    #[test]
    fn the_outermost_layers_of_stable_diffusion_1_are_a_quarter_of_it() {
        let sd = UNetConfig::sd15();
        let share = |side| {
            let whole = sd.operations(2, (side, side), 77).total();
            sd.shallow_operations(2, (side, side), 77).total() as f64 / whole as f64
        };
        assert!(share(64) > 0.2 && share(64) < 0.3, "{}", share(64));
        assert!(share(32) < share(64), "attention grows with the square of the pixels");
    }

    #[test]
    fn projections_are_the_same_arithmetic_in_either_form() {
        let convolved = UNetConfig::sd15();
        let connected = UNetConfig { use_linear_projection: true, ..UNetConfig::sd15() };
        let (a, b) = (convolved.operations(1, (64, 64), 77), connected.operations(1, (64, 64), 77));
        assert_eq!(a.total(), b.total());
        assert!(a.linear < b.linear);
    }

    #[test]
    fn odd_sizes_are_halved_as_the_network_halves_them() {
        let mut config = UNetConfig::sd15();
        assert_eq!(config.halved((9, 8)), (5, 4));
        config.downsample_padding = 0;
        assert_eq!(config.halved((9, 8)), (4, 4));
    }
}
