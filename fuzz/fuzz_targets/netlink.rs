#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relevo_fuzz::netlink::run(data));
