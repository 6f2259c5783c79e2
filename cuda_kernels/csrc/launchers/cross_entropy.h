// Cross-entropy (cross_entropy.cu); what all launchers have in common is in device.h. dtype: of logits and dlogits.
#pragma once

extern "C" {

// `dlogits` may be `logits` itself; both have `stride` elements from row to row. `loss`, `logsumexp`: [rows]. `scale`
// multiplies the gradient of each row, `scale_stride` elements from row to row: 0 for one number for all.
int datahall_cross_entropy(const void* logits, const long long* targets, const float* scale /* null for 1 */,
                           long long scale_stride, float* loss /* or null */, float* logsumexp /* or null */,
                           void* dlogits /* or null */, long long rows, long long width, long long stride,
                           long long ignored, float smoothing, int dtype, void* stream);

}  // extern "C"
