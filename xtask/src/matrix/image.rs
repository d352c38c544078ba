//! The BTF inside a bootable x86 image.

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _};

use super::compressor::Compressor;

/// The BTF of the kernel in a bzImage: that of `/sys/kernel/btf/vmlinux` when it runs.
pub fn btf(image: &[u8]) -> Result<Vec<u8>> {
    let vmlinux = decompress(payload(image)?)?;
    let file = object::File::parse(&*vmlinux).context("the image holds no ELF file")?;
    let section = file
        .section_by_name(".BTF")
        .context("the kernel was built without BTF")?;
    Ok(section.data()?.to_vec())
}

/// The compressed kernel, as the image's header places it (Documentation/arch/x86/boot.rst).
fn payload(image: &[u8]) -> Result<&[u8]> {
    if image.get(0x202..0x206) != Some(b"HdrS") {
        bail!("the image is no bzImage");
    }
    let word = |at: usize| {
        let bytes = image.get(at..at + 4).context("the image is cut short")?;
        Ok::<_, anyhow::Error>(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    // 0 setup sectors mean 4, and the boot sector comes before them.
    let sectors = match image[0x1f1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + word(0x248)?;
    let length = word(0x24c)?;
    image.get(start..start + length).context("the image is cut short")
}

/// The last four bytes of a payload are its uncompressed size.
fn decompress(payload: &[u8]) -> Result<Vec<u8>> {
    let stream = &payload[..payload.len().saturating_sub(4)];
    let known: [(&[u8], Compressor); 3] = [
        (&[0x02, 0x21, 0x4c, 0x18], Compressor::Lz4),
        (&[0x28, 0xb5, 0x2f, 0xfd], Compressor::Zstd),
        (&[0xfd, b'7', b'z', b'X', b'Z'], Compressor::Xz),
    ];
    let Some((_, compressor)) = known.iter().find(|(magic, _)| stream.starts_with(magic)) else {
        bail!("the image is compressed in a way that is not known here");
    };
    compressor.expand(stream.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_image_is_refused() {
        let refusal = |image: &[u8]| payload(image).unwrap_err().to_string();
        assert_eq!(refusal(&[0; 4096]), "the image is no bzImage");
        let mut image = vec![0; 0x250];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(refusal(&image), "the image is cut short");
        assert_eq!(refusal(&image[..0x210]), "the image is cut short");
    }

    #[test]
    fn the_payload_is_where_the_header_says() {
        let mut image = vec![0; 2 * 512];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x1f1] = 1;
        image[0x248] = 2;
        image[0x24c] = 3;
        image.extend(b"..abc-");
        assert_eq!(payload(&image).unwrap(), b"abc");
    }

    #[test]
    fn an_unknown_compression_is_said() {
        assert!(decompress(b"what is this").is_err());
        assert!(decompress(b"").is_err());
    }
}
