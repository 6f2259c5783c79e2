// One step of decoding over a paged cache (paged_attention.cu); what all launchers have in common is in device.h.
#pragma once

extern "C" {

// Into how many parts contexts of up to `most_tokens` are to be split, so that all multiprocessors have work.
int datahall_paged_splits(int sequences, int q_heads, int kv_heads, int most_tokens, int multiprocessors);

// Shapes: see PagedAttentionArguments. head_dim: 64 or 128. The partial arrays may be null where splits is 1; an 8-bit
// cache wants 16-bit data. A page number that does not exist, or a context longer than its row of pages, makes
// its sequence NaN.
int datahall_paged_attention(const void* q, void* keys, void* values, float* key_scales, float* value_scales,
                             const int* pages, const int* lengths, void* out, float* partial_out, float* partial_sums,
                             long long number_of_pages, int sequences, int most_pages, int q_heads, int kv_heads,
                             int head_dim, int splits, float scale, int cache_kind, int dtype, void* stream);

}  // extern "C"
