// Rotary positions and the cache's append (rope_append.cu); what all launchers have in common is in device.h.
#pragma once

extern "C" {

// Shapes: see RopeAppendArguments. head_dim: even, up to 256; rotary: even, up to head_dim; cache_kind: 0 as the data,
// 1 fp8, 2 int8; scales: of 8-bit caches alone. weight_dtype: of q_weight and k_weight.
int datahall_rope_append(const void* qkv, const long long* positions, const long long* slots, const float* angles,
                         const void* q_weight /* or null */, const void* k_weight /* or null */, void* q, void* keys,
                         void* values, float* key_scales, float* value_scales, long long tokens,
                         long long most_position, long long most_slot, int q_heads, int kv_heads, int head_dim,
                         int rotary, int interleaved, float epsilon, int cache_kind, int dtype, int weight_dtype,
                         void* stream);

}  // extern "C"
