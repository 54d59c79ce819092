//! TUN devices: a file that gives and takes the IP packets of a network device.

use std::fs::{File, OpenOptions};
use std::io;

use rustix::ioctl::{Opcode, Setter, ioctl};

/// `TUNSETIFF`, from linux/if_tun.h.
const ATTACH: Opcode = 0x4004_54ca;
/// `IFF_TUN | IFF_NO_PI`: IP packets with nothing before them.
const FLAGS: u16 = 0x1001;

/// Makes a device in this namespace; it goes with the file.
pub(crate) fn device(name: &str) -> io::Result<File> {
    // struct ifreq: 16 bytes of name, then a union that begins with the flags.
    let mut request = [0_u8; 40];
    assert!(name.len() < 16, "the kernel's names have at most 15 bytes");
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&FLAGS.to_ne_bytes());
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: TUNSETIFF takes a pointer to a struct ifreq, whose size and layout the array has.
    unsafe { ioctl(&file, Setter::<ATTACH, [u8; 40]>::new(request))? };
    Ok(file)
}
