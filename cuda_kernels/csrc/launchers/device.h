// The plain-C functions between the kernels and torch's bindings: no torch on one side, no CUDA on the other. A file for
// each family; what they have in common:
//
// Launchers return 0 or a cudaError_t. Pointers are to device memory, rows are contiguous, null stands for "none" where
// the comment says so. dtype: a code of dtypes.cuh. They do not wait for the GPU.
//
// Here are those of the device itself (bindings/device.cpp).
#pragma once

extern "C" {

// How many multiprocessors a device has, how much shared memory a block may have there, and what an error code means.
int datahall_multiprocessors(int device, int* count);
int datahall_shared_bytes(int device, int* count);
const char* datahall_error_text(int error);

}  // extern "C"
