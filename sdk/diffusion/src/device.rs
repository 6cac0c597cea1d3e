//! Devices: which are there, which is meant.

use atelier_sdk::engine::DeviceInfo;
use atelier_sdk::{Device, Dtype, Error, ErrorKind, Result};
pub use atelier_weights::Precision;
use candle_core::DType;
use std::panic::catch_unwind;

/// All devices of this build, with whether they work here.
pub fn list() -> Vec<DeviceInfo> {
    let mut out =
        vec![DeviceInfo { device: "cpu".into(), available: cfg!(feature = "cpu"), detail: cpu_features() }];
    for (name, compiled, device) in [
        ("metal:0", cfg!(feature = "metal"), Device::Metal(0)),
        ("cuda:0", cfg!(feature = "cuda"), Device::Cuda(0)),
    ] {
        let (available, detail) = match (compiled, compiled.then(|| open_gpu(device))) {
            (true, Some(Ok(_))) => (true, "present".to_string()),
            (true, Some(Err(e))) => (false, e.chain().join(": ")),
            _ => (false, "not compiled in".to_string()),
        };
        out.push(DeviceInfo { device: name.into(), available, detail });
    }
    out
}

/// The kind of processor, and of what speeds our kernels up the features that it has.
fn cpu_features() -> String {
    #[cfg(target_arch = "x86_64")]
    let features = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512bf16", std::arch::is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(target_arch = "aarch64")]
    let features = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("bf16", std::arch::is_aarch64_feature_detected!("bf16")),
    ];
    #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
    let features: [(&str, bool); 0] = [];
    let found: Vec<_> = features.iter().filter(|f| f.1).map(|f| f.0).collect();
    [&[std::env::consts::ARCH][..], &found].concat().join(", ")
}

/// The device that a request means.
///
/// # Errors
/// It is not compiled in or not there.
pub fn open(device: Device) -> Result<candle_core::Device> {
    match device {
        Device::Cpu => open_cpu(),
        Device::Auto => {
            for (compiled, gpu) in
                [(cfg!(feature = "metal"), Device::Metal(0)), (cfg!(feature = "cuda"), Device::Cuda(0))]
            {
                if compiled && let Ok(found) = open_gpu(gpu) {
                    return Ok(found);
                }
            }
            open_cpu()
        }
        gpu => open_gpu(gpu),
    }
}

fn open_cpu() -> Result<candle_core::Device> {
    if cfg!(feature = "cpu") {
        return Ok(candle_core::Device::Cpu);
    }
    Err(Error::new(ErrorKind::Unsupported, "device `cpu` is not compiled in")
        .hint("rebuild with `--features cpu`"))
}

fn open_gpu(device: Device) -> Result<candle_core::Device> {
    let missing = |why: String| {
        Error::new(ErrorKind::Environment, format!("there is no device `{device}` on this machine"))
            .because(why)
            .hint("`atelier doctor` lists the devices; `--device cpu` works everywhere")
    };
    // candle panics on a Metal ordinal that does not exist.
    let opened = catch_unwind(|| match device {
        Device::Metal(n) => candle_core::Device::new_metal(n),
        Device::Cuda(n) => candle_core::Device::new_cuda(n),
        Device::Auto | Device::Cpu => Ok(candle_core::Device::Cpu),
    });
    match opened {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(e)) => Err(missing(e.to_string())),
        Err(_) => Err(missing("the driver found no such device".into())),
    }
}

/// The number format that a request means on a device.
///
/// # Errors
/// The device has no such format.
pub fn precision(dtype: Dtype, device: &candle_core::Device) -> Result<Precision> {
    Ok(Precision::Float(match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::Bf16 => DType::BF16,
        Dtype::Auto if device.is_cpu() => DType::F32,
        Dtype::Auto => DType::F16,
        Dtype::Int8 if device.is_cpu() => return Ok(Precision::Int8),
        Dtype::Int8 => {
            let message = format!("`{}` cannot compute with weights of 8 bits", name(device));
            return Err(Error::new(ErrorKind::Unsupported, message)
                .hint("`--precision f16` is the smallest there; `--device cpu` knows int8"));
        }
    }))
}

/// `cpu f32`, `metal:0 f16`.
pub fn describe(device: &candle_core::Device, precision: impl Into<Precision>) -> String {
    format!("{} {}", name(device), precision.into().as_str())
}

fn name(device: &candle_core::Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".to_string(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

/// Computed in 16-bit floats, the autoencoder of Stable Diffusion 1.x overflows: images turn black. The CPU computes in
/// f32 whatever the weights are stored in; eight bits are too few for its, which are few themselves.
pub fn vae_dtype(precision: impl Into<Precision>, device: &candle_core::Device) -> DType {
    match precision.into().dtype() {
        DType::F16 if !device.is_cpu() => DType::F32,
        dtype => dtype,
    }
}
