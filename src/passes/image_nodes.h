// Which nodes may have the channels of their images last: convolutions, pools, reductions of images, what joins channels or computes
// element by element.
#pragma once

#include <optional>
#include <vector>

#include "graph/graph.h"

namespace tandem::passes {

// Operands that are images [n,c,h,w], or broadcast over some, and would be [n,h,w,c]; the result is one too, but for Reduce. Nothing: the
// node cannot be had so.
std::optional<std::vector<std::size_t>> images_of(const Node& node);
// A convolution [n,c,h,w] of one group.
bool is_dense_conv(const Node& node);
// Whether libraries for GPUs take it with the channels last, or it is our own kernel's in either layout: 16-bit floats, and if it is dense
// a number of channels in the result that is a multiple of window::kChannelMultiple.
bool suits_channels_last(const Node& conv);
// [c,1,1]: a number per channel of the images beside it.
bool is_channel_column(const Type& type);
// Elements times their bits where the first profile's symbols have their usual values.
double typical_bits(const Value& value);

}  // namespace tandem::passes
