//! The networks of a model, or their shapes with made-up weights.

use atelier_diffusion::{Files, device, error, files, made_up};
use atelier_models::{AutoencoderKl, ClipTextModel, Network, Prepared, UNet2DConditionModel};
use atelier_sdk::{LoadRequest, Result};
use atelier_weights::Precision;
use candle_core::Device;

/// Where networks come from, and where they compute.
pub struct Networks {
    /// None for made-up weights.
    files: Option<Files>,
    /// Where they compute.
    pub device: Device,
    /// What their weights are stored as.
    pub precision: Precision,
}

impl Networks {
    /// Those of the model of a request. None of them is loaded yet.
    ///
    /// # Errors
    /// No device, no files, a model whose shapes are not known.
    pub fn of(request: &LoadRequest<'_>) -> Result<Self> {
        let device = device::open(request.device)?;
        let precision = device::precision(request.dtype, &device)?;
        let model = request.model()?;
        if request.fake_weights {
            made_up::check(&model.key)?;
            return Ok(Self { files: None, device, precision });
        }
        let path = model.weights()?;
        let place = || format!("cannot load model `{}` from {}", model.key, path.display());
        let files = Files::of(model, path).map_err(|e| e.context(place()))?;
        Ok(Self { files: Some(files), device, precision })
    }

    /// `cpu f32`.
    pub fn describe(&self) -> String {
        device::describe(&self.device, self.precision)
    }

    /// Whether the weights are made up.
    pub fn made_up(&self) -> bool {
        self.files.is_none()
    }

    /// The text encoder.
    ///
    /// # Errors
    /// Missing or damaged files.
    pub fn text(&self) -> Result<Prepared<ClipTextModel>> {
        self.files.as_ref().map_or_else(|| Ok(made_up::text()), Files::text)
    }

    /// The UNet.
    ///
    /// # Errors
    /// Missing or damaged files.
    pub fn unet(&self) -> Result<Prepared<UNet2DConditionModel>> {
        self.files.as_ref().map_or_else(|| Ok(made_up::unet()), Files::unet)
    }

    /// The autoencoder.
    ///
    /// # Errors
    /// Missing or damaged files.
    pub fn vae(&self) -> Result<Prepared<AutoencoderKl>> {
        self.files.as_ref().map_or_else(|| Ok(made_up::vae()), Files::vae)
    }

    /// Builds a network, its weights stored as `precision` says.
    ///
    /// # Errors
    /// Missing or misshapen tensors.
    pub fn built<M: Network>(
        &self,
        name: &str,
        network: &Prepared<M>,
        precision: impl Into<Precision>,
    ) -> Result<M> {
        let opened = network.build(precision, &self.device).map_err(|e| files::failed(name, e))?;
        Ok(opened.model)
    }

    /// The latents (height, width) of an image of this size.
    ///
    /// # Errors
    /// As for [`Self::vae`].
    pub fn latents(&self, width: u32, height: u32) -> Result<(usize, usize)> {
        let factor = self.vae()?.config().factor();
        Ok((height as usize / factor, width as usize / factor))
    }
}

/// What a tensor operation ran into while the input of a network was made.
pub fn input(e: candle_core::Error) -> atelier_sdk::Error {
    error::tensor("making the input of a benchmark")(e)
}
