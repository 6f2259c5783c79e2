// AdamW (adamw.cu); what all launchers have in common is in device.h. dtype: of parameters and gradients.
#pragma once

extern "C" {

// One tensor of the model. An array of these, the table, lies in device memory.
struct AdamWTensor {
  void* parameter;
  const void* gradient;
  void* first;          // m: float32, or 8-bit codes
  void* second;         // v: float32, or 8-bit codes of its root
  float* first_scales;  // 8 bits only: one for each block of 256
  float* second_scales;
  const float* step;    // one number, which counts from 1
  long long count;
  long long first_chunk;  // how many chunks the tensors before it have
};

// Chunks of a tensor of `count` elements: `first_chunk` of the next one is so many further.
long long datahall_adamw_chunks(long long count);

// Writes `rows`, which are in the host's memory, to the table.
int datahall_adamw_table(const AdamWTensor* rows, int number, void* table, void* stream);

// The squared norm of all gradients together; of the table it reads gradients and sizes. `sums`: [chunks], scratch.
int datahall_squared_norm(const void* table, int number, long long chunks, float* sums, float* squared_norm, int dtype,
                          void* stream);

// One step for all tensors; `learning_rate` and `squared_norm` are one number each. beta^step comes from `log_beta`.
int datahall_adamw(const void* table, int number, long long chunks, const float* learning_rate,
                   const float* squared_norm /* null: no clipping */, float most_norm, float one_minus_beta1,
                   float one_minus_beta2, float log_beta1, float log_beta2, float epsilon, float decay, int eight_bit,
                   int stochastic, unsigned long long seed, int dtype, void* stream);

}  // extern "C"
