// Draws tokens (sampling.cu); what all launchers have in common is in device.h.
#pragma once

extern "C" {

// Null stands for "none" with all pointers but logits, seeds, offsets and tokens.
//
// logits: [rows, stride] of `dtype`, the first `vocabulary` of each row. All other arrays have an element per row, or
// a row per row: temperature to frequency are float32 but for top_k, which is int32; listed and counts: [rows,
// capacity], int32, the first lengths[row] of each (null: all); allowed: [rows, allowed_words], a bit per token, the
// lowest first; seeds and offsets: 64 bits. tokens: int64; log_probabilities: float32. shared_bytes: what a block of
// this device may have of shared memory.
int datahall_sample(const void* logits, const float* temperature, const int* top_k, const float* top_p,
                    const float* min_p, const float* repetition, const float* presence, const float* frequency,
                    const int* listed, const int* counts, const int* lengths, const unsigned* allowed,
                    const unsigned long long* seeds, const unsigned long long* offsets, long long* tokens,
                    float* log_probabilities, long long rows, long long vocabulary, long long stride,
                    long long capacity, long long allowed_words, int shared_bytes, int dtype, void* stream);

}  // extern "C"
