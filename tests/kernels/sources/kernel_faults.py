"""Deliberate faults in the kernels' sources: each has to be noticed by the checks that the tests here are made of.

Not among the plain tests, because each fault is a compilation: `make test-kernels` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kernel_execution import Fault, Library, Order
from kernel_execution.faults import find_survivors
from tests.kernels.sources import (
    norms,
    test_adamw,
    test_cross_entropy,
    test_embedding_bag,
    test_sampling,
    test_weight_only,
)
from tests.kernels.sources.launching import made
from tests.kernels.sources.test_decoding import FP8, INT8, Step

CSRC = Path(__file__).resolve().parents[3] / "cuda_kernels" / "csrc"
BF16 = torch.bfloat16


def check_norms(kernels: Library) -> None:
    for width in (123, 768, 2048, 9000):
        for layer in (False, True):
            case = norms.Case(3, width, BF16, layer=layer, weight_dtype=BF16, order=Order.SHUFFLED)
            norms.check(kernels, case)
    norms.check(kernels, norms.Case(40, 384, torch.float32, layer=True, weight_dtype=torch.float32))


def check_cross_entropy(kernels: Library) -> None:
    for width, stride in ((123, 123), (1001, 1008), (70_000, 70_000)):
        logits, targets = made(3, width, dtype=BF16, seed=1), test_cross_entropy.targets_of(3, width)
        found = test_cross_entropy.run(
            kernels, logits, targets, stride=stride, smoothing=0.1, order=Order.SHUFFLED
        )
        test_cross_entropy.assert_right(logits, targets, found, 0.1)
    test_cross_entropy.test_each_row_has_a_scale_of_its_own(kernels, 100)


def check_adamw(kernels: Library) -> None:
    test_adamw.test_steps_are_those_of_torch_in_float64(kernels, torch.float32, Order.SHUFFLED)
    test_adamw.test_eight_bit_states_lead_to_the_same_place(kernels)
    test_adamw.test_an_eight_bit_state_is_near_what_it_stands_for(kernels)
    test_adamw.test_small_steps_of_bfloat16_arrive_in_the_mean_when_rounded_stochastically(kernels)
    test_adamw.test_stochastic_rounding_is_the_same_for_the_same_seed_and_another_at_each_step(kernels)
    test_adamw.test_a_norm_that_is_nan_is_not_taken_for_a_small_one(kernels)
    test_adamw.test_each_tensor_has_a_step_of_its_own(kernels)
    for number in (1, 100):
        test_adamw.test_the_table_is_written_row_by_row(kernels, number)


def check_weight_only(kernels: Library) -> None:
    for bits in (8, 4):
        for rows, inputs in ((2, 701), (9, 304), (8, 2100)):
            test_weight_only.check(
                kernels,
                **{"rows": rows, "inputs": inputs, "outputs": 37, "bits": bits, "dtype": torch.float32},
                order=Order.SHUFFLED,
            )


def check_decoding(kernels: Library) -> None:
    Step(torch.float32, lengths=(1, 17, 70), splits=2, order=Order.SHUFFLED).check(kernels)
    for kind in (FP8, INT8):
        Step(BF16, kind, q_heads=9, kv_heads=3, lengths=(5, 130), splits=3).check(kernels)
    Step(torch.float32, lengths=(20,), interleaved=True, rotary=32).check(kernels)


def check_sampling(kernels: Library) -> None:
    batch = test_sampling.drawn_by_all(24, 1001, BF16)
    test_sampling.assert_right(batch, batch.run(kernels, stride=1008, order=Order.SHUFFLED))
    batch = test_sampling.drawn_by_all(6, 8192, torch.float32)
    for shared_bytes in (20_000, test_sampling.ON_H100):
        test_sampling.assert_right(batch, batch.run(kernels, shared_bytes=shared_bytes, order=Order.SHUFFLED))
    test_sampling.test_a_nucleus_of_thousands(kernels)
    test_sampling.test_temperature_0_takes_the_lowest_of_the_greatest(kernels, BF16)
    for case in ("a logit of nan", "none allowed", "top_p nan"):
        test_sampling.test_rows_without_a_token_say_so(kernels, case)


def check_bags(kernels: Library) -> None:
    bag = test_embedding_bag.Bags
    for order in (Order.REVERSE, Order.SHUFFLED):
        bag((3, 0, 1, 9, 4), 40, BF16, mean=True, padding=5, rows=8, order=order).check(kernels)
        bag((7,) * 250, 16, weighted=True, favourite=0.6, rows=4, order=order).check(kernels)
    test_embedding_bag.test_an_index_that_is_no_row_makes_its_bag_nan_and_has_no_gradient(kernels, True, 50)
    test_embedding_bag.test_positions_and_bags_that_are_none_pass_nothing(kernels)


NORM, LOSS, ADAMW, WEIGHTS, DECODING = "norm", "cross-entropy", "adamw", "weight-only", "decoding"
SAMPLING, BAGS = "sampling", "embedding bag"
SUITES: dict[str, tuple[list[str], Callable[[Library], None]]] = {
    NORM: (["norm.cu"], check_norms),
    LOSS: (["cross_entropy.cu"], check_cross_entropy),
    ADAMW: (["adamw.cu"], check_adamw),
    WEIGHTS: (["weight_only.cu"], check_weight_only),
    DECODING: (["rope_append.cu", "paged_attention.cu"], check_decoding),
    SAMPLING: (["sampling.cu"], check_sampling),
    BAGS: (["embedding_bag.cu"], check_bags),
}
FAULTS: list[tuple[str, Fault]] = [
    (NORM, Fault("reduce.cuh", "      __syncthreads();\n      const int warps", "      const int warps",
                 "the sums of the warps are read before they are there")),
    (NORM, Fault("reduce.cuh", "      turn_ ^= 1;\n", "", "the same slots are written again while others read them")),
    (NORM, Fault("reduce.cuh", "for (int distance = warp_size / 2; distance > 0; distance /= 2) {\n    value += ",
                 "for (int distance = warp_size / 4; distance > 0; distance /= 2) {\n    value += ",
                 "half of a warp is left out")),
    (NORM, Fault("norm.cu", "if (column < width) kept[p] = read_and_add", "if (column <= width) kept[p] = read_and_add",
                 "one pack beyond the row is read")),
    (NORM, Fault("norm.cu", "if (row >= a.rows) return;  // a whole warp, or nobody", "",
                 "warps without a row go on")),
    (NORM, Fault("norm.cu", "float off = dy.get(i) * weight[i] - x_hat * means[0];",
                 "float off = dy.get(i) * weight[i] + x_hat * means[0];", "a sign in the gradient")),
    (NORM, Fault("norm.cu", "if constexpr (layer) off -= means[1];", "", "LayerNorm without its mean of the gradient")),
    (NORM, Fault("norm.cu", "partial[partial_start + column] = sum;\n      }\n      __syncthreads();",
                 "partial[partial_start + column] = sum;\n      }", "the sums of dbias come while dweight's are read")),
    (NORM, Fault("norm.cu", "warp < warps_per_block; ++warp) sum +=", "warp < warps_per_block - 1; ++warp) sum +=",
                 "the last warp of a block is left out")),
    (NORM, Fault("norm.cu", "row < a.rows; row += gridDim.y", "row < a.rows - 1; row += gridDim.y",
                 "the last row is left out of the columns' sums")),
    (NORM, Fault("norm.cu", "mine += partial[row * width + column];", "mine += partial[row * width + column + 1];",
                 "partial sums of the next column")),
    (LOSS, Fault("cross_entropy.cu", "if (column + i == target) off -= row.right;",
                 "if (column + i + 1 == target) off -= row.right;", "the class beside the right one")),
    (LOSS, Fault("cross_entropy.cu", "return width - column < count ?", "return width - column < 0 ?",
                 "padding counts as logits")),
    (LOSS, Fault("cross_entropy.cu", "sums[0] *= expf(mine - more);", "", "an old sum under a new maximum")),
    (LOSS, Fault("reduce.cuh", "slots_.of[threadIdx.x / warp_size] = value;\n    __syncthreads();",
                 "slots_.of[threadIdx.x / warp_size] = value;", "no barrier before the maximum")),
    (LOSS, Fault("cross_entropy.cu", "counts ? scale : 0.0f", "scale", "ignored rows have a gradient")),
    (LOSS, Fault("cross_entropy.cu", "a.scale[row * a.scale_stride]", "*a.scale",
                 "all rows have the first one's scale")),
    (ADAMW, Fault("adamw.cu", "if (!(share >= 1.0f)) gradient = share;", "if (share < 1.0f) gradient = share;",
                  "a norm that is NaN passes for a small one")),
    (ADAMW, Fault("adamw.cu", "const float step = *tensor.step;", "const float step = *a.tensors->step;",
                  "all tensors have the first one's step number")),
    (ADAMW, Fault("adamw.cu", "static_cast<AdamWTensor*>(table) + start, some)",
                  "static_cast<AdamWTensor*>(table), some)", "later rows of the table in the place of the first")),
    (ADAMW, Fault("adamw.cu", "if (row < number) table[row]", "if (row <= number) table[row]",
                  "a row beyond the table")),
    (ADAMW, Fault("adamw.cu", "if (tensors[middle].first_chunk <= chunk)", "if (tensors[middle].first_chunk < chunk)",
                  "the first chunk of a tensor goes to the one before")),
    (ADAMW, Fault("adamw.cu", "__syncwarp();  // all have read the scales", "",
                  "scales are written while others read")),
    (ADAMW, Fault("adamw.cu", "words.y |= codes[i + 4] << (8 * i);", "words.y |= codes[i + 4] << (4 * i);",
                  "codes that overlap")),
    (ADAMW, Fault("adamw.cu", "+ noise) & 0xffff0000u", "+ (noise >> 1)) & 0xffff0000u", "rounds up too seldom")),
    (ADAMW, Fault("adamw.cu", "static_cast<unsigned>(number), static_cast<unsigned>(step)",
                  "0u, static_cast<unsigned>(step)", "tensors alike are rounded alike")),
    (ADAMW, Fault("adamw.cu", "const int there = left >= per_thread ? per_thread :",
                  "const int there = left >= 1 ? per_thread :", "beyond the end of a tensor")),
    (WEIGHTS, Fault("weight_only.cu", "    __syncthreads();  // all have done with the tile before\n", "",
                    "a tile is written while others read the one before")),
    (WEIGHTS, Fault("weight_only.cu", "const unsigned in_place = i % 8 < 5 ? word : word >> 20;",
                    "const unsigned in_place = i % 8 < 5 ? word : word >> 16;", "the upper codes of a word")),
    (WEIGHTS, Fault("weight_only.cu", "if (byte < a.row_bytes &&", "if (byte <= a.row_bytes &&",
                    "one load beyond the row")),
    (WEIGHTS, Fault("dtypes.cuh", "there >= count && reinterpret_cast<unsigned long long>(from) % 16 == 0",
                    "there >= count", "rows that no wide load fits are read in packs")),
    (WEIGHTS, Fault("weight_only.cu", "const int group = min(input / a.group, a.groups - 1);",
                    "const int group = min(input / a.group + 1, a.groups - 1);", "the next group's scale")),
    (DECODING, Fault("paged_cache.cuh", "(page * heads + head) * page_size + in_page",
                     "(page * page_size + in_page) * heads + head", "another layout of pages than the documented")),
    (DECODING, Fault("rope_append.cu", "kept[p][1] = other * cosine + one * sine;",
                     "kept[p][1] = other * cosine - one * sine;", "turned the other way")),
    (DECODING, Fault("paged_attention.cu", "sum[h] *= kept;\n", "", "an old sum under a new maximum")),
    (DECODING, Fault("paged_attention.cu", "  __syncthreads();\n  for (int item", "  for (int item",
                     "the warps' parts are joined before they are there")),
    (DECODING, Fault("paged_attention.cu", "const bool counts = at * step + pass * at_once + lane / lanes < length;",
                     "const bool counts = at * step + pass * at_once + lane / lanes <= length;",
                     "a token beyond the context counts")),
    (DECODING, Fault("paged_attention.cu", "for (int split = 0; split < a.splits; ++split) most =",
                     "for (int split = 1; split < a.splits; ++split) most =", "the first part's maximum is left out")),
    (SAMPLING, Fault("sampling.cu", "      if (dropped) left = sum(cut);\n", "",
                     "top-p is of all, and not of what top-k left")),
    (SAMPLING, Fault("sampling.cu", "(before + low < before ? 1u : 0u)",
                     "(before + low < before ? 0u : 0u)", "a carry is lost")),
    (SAMPLING, Fault("sampling.cu", "expected & ~bit", "expected | bit", "listed tokens are in the row, too")),
    (SAMPLING, Fault("sampling.cu", "    __syncthreads();  // all have read the sums before\n", "",
                     "sums are written while others read those before")),
    (SAMPLING, Fault("sampling.cu", "(bits & 0x80000000u) != 0 ? ~bits", "(bits & 0x80000000u) != 0 ? bits",
                     "negative logits stand the wrong way round")),
    (SAMPLING, Fault("sampling.cu", "      at -= all;\n", "", "a warp forgets what it has passed")),
    (SAMPLING, Fault("sampling.cu", "lowest = __reduce_min_sync(", "lowest = __reduce_max_sync(",
                     "not the lowest of the greatest")),
    (SAMPLING, Fault("sampling.cu", "if (times > 0) z -=", "z -=", "presence of tokens of the prompt alone")),
    (SAMPLING, Fault("sampling.cu", "width_ - word * 32 < 32 ?", "width_ - word * 32 < 0 ?",
                     "the padding may be drawn")),
    (SAMPLING, Fault("sampling.cu", "      above = space_.before;\n", "", "what lies above a bin is forgotten")),
    (SAMPLING, Fault("sampling.cu", "const int error = allow_shared(kernel, room);", "const int error = 0;",
                     "more shared memory than a block has unasked")),
    (SAMPLING, Fault("sampling.cu", "allow_shared(kernel, room);", "allow_shared(kernel, bytes - 16);",
                     "less shared memory is asked for than is taken")),
    (BAGS, Fault("embedding_bag.cu", "__syncthreads();  // all have read the parts before", "",
                 "parts are written while others read those before")),
    (BAGS, Fault("embedding_bag.cu", "is_right = is_right && 0 <= index && index < a.rows;",
                 "is_right = is_right && 0 <= index && index <= a.rows;", "a row beyond the table")),
    (BAGS, Fault("embedding_bag.cu", "counts[k] = is_right && index != a.padding;", "counts[k] = is_right;",
                 "the padding counts")),
    (BAGS, Fault("embedding_bag.cu", "for (int of = 1; of < groups; ++of)", "for (int of = 2; of < groups; ++of)",
                 "a part of a long segment is left out")),
    (BAGS, Fault("embedding_bag.cu", "if (position < 0 || position >= a.entries) continue;\n", "",
                 "a position that is none")),
    (BAGS, Fault("embedding_bag.cu", "(a.sparse ? segment : row)", "(a.sparse ? row : segment)",
                 "the dense gradient in the place of the sparse one")),
]  # fmt: skip


@pytest.mark.parametrize("suite", SUITES)
def test_faults_are_noticed(suite: str) -> None:
    sources, check = SUITES[suite]
    faults = [fault for of, fault in FAULTS if of == suite]
    assert not find_survivors(faults, [CSRC / name for name in sources], check)


def test_there_are_enough_of_them() -> None:
    assert len(FAULTS) >= 20
