// Norms (norm.cu); what all launchers have in common is in device.h. dtype: of x, residual, y, summed, dy, dsummed, dx;
// weight_dtype: of weight, bias and their gradients, which is dtype or float32.
#pragma once

extern "C" {

int datahall_rms_norm_forward(const void* x, const void* residual /* or null */, const void* weight /* or null */,
                              void* y, void* summed /* null without residual */, float* rstd, long long rows,
                              long long width, float epsilon, int dtype, int weight_dtype, void* stream);

int datahall_layer_norm_forward(const void* x, const void* residual /* or null */, const void* weight /* or null */,
                                const void* bias /* or null */, void* y, void* summed /* null without residual */,
                                float* mean, float* rstd, long long rows, long long width, float epsilon, int dtype,
                                int weight_dtype, void* stream);

// How many rows `partial_dweight` and `partial_dbias` have in the backward pass.
int datahall_norm_partials(long long rows, long long width, int multiprocessors);

// Gradients of weight and bias: [partials, width] of float32 to work in, and the result; both null: not wanted.
int datahall_rms_norm_backward(const void* dy, const void* dsummed /* or null */, const void* x,
                               const void* weight /* or null */, const float* rstd, void* dx, float* partial_dweight,
                               void* dweight, long long rows, long long width, int partials, int dtype,
                               int weight_dtype, void* stream);

int datahall_layer_norm_backward(const void* dy, const void* dsummed /* or null */, const void* x,
                                 const void* weight /* or null */, const float* mean, const float* rstd, void* dx,
                                 float* partial_dweight, float* partial_dbias, void* dweight, void* dbias,
                                 long long rows, long long width, int partials, int dtype, int weight_dtype,
                                 void* stream);

}  // extern "C"
