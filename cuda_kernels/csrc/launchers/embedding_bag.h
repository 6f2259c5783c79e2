// Sums and means of rows of a table, bag by bag (embedding_bag.cu); what all launchers have in common is in device.h.
//
// table: [rows, width], y and dy: [bags, width], weights and dweights: [entries], all of `dtype`; indices: [entries],
// offsets: [bags], where each bag begins, both of index_bytes (4 or 8). Entries of row `padding` (negative: of none) do
// not count. bag_of: [entries].
#pragma once

extern "C" {

// counts: [bags], the entries that count, or null. weights or null, and null with `mean`.
int datahall_embedding_bag_forward(const void* table, const void* indices, const void* offsets, const void* weights,
                                   void* y, int* counts, long long rows, long long width, long long entries,
                                   long long bags, long long padding, int mean, int index_bytes, int dtype,
                                   void* stream);

// sorted: [entries], the indices in order, and positions: [entries], where each was; starts: [segments], where in
// `sorted` each row's entries begin (`entries` and more: a segment that is not there). counts: of the forward pass, for
// means; else null. gradient: [rows, width]; with `sparse` [segments, width], of the row of each segment.
int datahall_embedding_bag_backward(const void* dy, const void* sorted, const long long* positions,
                                    const long long* bag_of, const long long* starts, const void* weights,
                                    const int* counts, void* gradient, long long rows, long long width,
                                    long long entries, long long bags, long long segments, long long padding,
                                    int sparse, int index_bytes, int dtype, void* stream);

// The gradient of the weights: 0 for entries that do not count.
int datahall_embedding_bag_weight_gradient(const void* dy, const void* table, const void* indices,
                                           const long long* bag_of, void* dweights, long long rows, long long width,
                                           long long entries, long long bags, long long padding, int index_bytes,
                                           int dtype, void* stream);

}  // extern "C"
