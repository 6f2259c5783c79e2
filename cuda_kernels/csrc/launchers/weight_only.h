// Products with weights of 8 and 4 bits (weight_only.cu); what all launchers have in common is in device.h.
#pragma once

extern "C" {

// y = x W^T + bias. x: [rows, inputs], y: [rows, outputs], bias: [outputs], all of `dtype`; codes: [outputs, row_bytes],
// row_bytes a multiple of 16 with room for all inputs; scales: [outputs, ceil(inputs / group)]; bits: 8 or 4; group: a
// multiple of 32, or at least `inputs`.
int datahall_weight_only(const void* x, const void* codes, const float* scales, const void* bias /* or null */, void* y,
                         long long rows, int inputs, int outputs, int row_bytes, int group, int bits,
                         int multiprocessors, int dtype, void* stream);

}  // extern "C"
