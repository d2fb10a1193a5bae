//! Memory for large pieces straight from the system, so that it goes back as soon as it is free.
//!
//! An allocator of many small pieces keeps what it once had for the next one: after one login the server
//! would hold the memory of a password's hash for as long as it idles. The C library maps each piece of 32 MiB
//! or more on its own (`DEFAULT_MMAP_THRESHOLD_MAX`), and unmaps it when it is freed.
//!
//! Knows nothing of who allocates what: a piece's size decides, and it is the same when the piece is freed.

#![allow(
    unsafe_code,
    reason = "an allocator hands out pointers, and no safe interface gives memory back"
)]

use std::alloc::{GlobalAlloc, Layout, System};

/// Octets from which on a piece is the system's.
pub const LARGE: usize = 32 << 20;

/// An allocator for everything smaller than [`LARGE`].
#[derive(Debug)]
pub struct LargeApart<A>(pub A);

const fn is_large(size: usize) -> bool {
    size >= LARGE
}

// SAFETY: each piece is allocated and freed by the one of two allocators that its size chooses, and GlobalAlloc
// has callers name the same size when they free it; `realloc` moves what changes sides.
unsafe impl<A: GlobalAlloc> GlobalAlloc for LargeApart<A> {
    // SAFETY: the caller keeps GlobalAlloc's contract.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: what the caller promises of `layout` is what both ask for.
        unsafe {
            match is_large(layout.size()) {
                true => System.alloc(layout),
                false => self.0.alloc(layout),
            }
        }
    }

    // SAFETY: the caller keeps GlobalAlloc's contract.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe {
            match is_large(layout.size()) {
                true => System.alloc_zeroed(layout),
                false => self.0.alloc_zeroed(layout),
            }
        }
    }

    // SAFETY: the caller keeps GlobalAlloc's contract.
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // SAFETY: `layout` is that of the piece's allocation, so this is the allocator that it came from.
        unsafe {
            match is_large(layout.size()) {
                true => System.dealloc(piece, layout),
                false => self.0.dealloc(piece, layout),
            }
        }
    }

    // SAFETY: the caller keeps GlobalAlloc's contract.
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`. Where the piece changes sides, the caller promises that `size` with the old
        // alignment is a layout, and both pieces hold the octets that are copied.
        unsafe {
            match (is_large(layout.size()), is_large(size)) {
                (true, true) => System.realloc(piece, layout, size),
                (false, false) => self.0.realloc(piece, layout, size),
                _ => {
                    let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                    if !new.is_null() {
                        new.copy_from_nonoverlapping(piece, layout.size().min(size));
                        self.dealloc(piece, layout);
                    }
                    new
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    /// How many pieces it has out.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    // SAFETY: the system's allocator does it all.
    unsafe impl GlobalAlloc for Counting {
        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.0.fetch_add(1, SeqCst);
            // SAFETY: the caller's promise.
            unsafe { System.alloc(layout) }
        }

        // SAFETY: the caller keeps GlobalAlloc's contract.
        unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
            self.0.fetch_sub(1, SeqCst);
            // SAFETY: the caller's promise.
            unsafe { System.dealloc(piece, layout) }
        }
    }

    #[test]
    fn a_piece_that_grows_and_shrinks_over_the_limit_changes_sides_with_what_it_holds() {
        let allocator = LargeApart(Counting::default());
        let layout = |size| Layout::from_size_align(size, 64).unwrap();
        let small = || allocator.0.0.load(SeqCst);
        // SAFETY: each piece is used within its size, and freed once with its last layout.
        unsafe {
            let piece = allocator.alloc(layout(100));
            piece.write_bytes(7, 100);
            assert_eq!(small(), 1);
            let piece = allocator.realloc(piece, layout(100), LARGE);
            assert_eq!((small(), *piece.add(99), piece.align_offset(64)), (0, 7, 0));
            let piece = allocator.realloc(piece, layout(LARGE), LARGE + 1);
            assert_eq!((small(), *piece.add(99)), (0, 7));
            let piece = allocator.realloc(piece, layout(LARGE + 1), LARGE - 1);
            assert_eq!((small(), *piece.add(99)), (1, 7));
            allocator.dealloc(piece, layout(LARGE - 1));
            assert_eq!(small(), 0);
            let piece = allocator.alloc_zeroed(layout(LARGE));
            assert_eq!((small(), *piece.add(LARGE - 1)), (0, 0));
            allocator.dealloc(piece, layout(LARGE));
        }
    }
}
