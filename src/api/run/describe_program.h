// The parts of Engine::describe that follow from one program: how values lie over the mesh, layers, memory over time.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "plan/plan.h"

namespace tandem {

// An extent as a number, or as an expression over symbols.
nlohmann::json number_or_text(const Dim& dim);

// "sharding" in words; "split", per dimension the axes that split it; "partial", the axes that it is a sum over; "varying".
void describe_sharding(nlohmann::json& into, const Sharding& sharding, int rank);

// Per value: name, kind, dtype, extents of one rank's part, sharding, bytes with these symbols, lifetime in steps, or in whose memory it
// lies.
nlohmann::json describe_values(const Program& program, const SymbolValues& symbols);

// Per dimension of a weight, the mesh axes that cut it: what its recipe slices by coordinates, wherever later parts of the recipe move it.
std::vector<std::vector<std::string>> split_of(const Recipe& recipe);

// Per step the part of the model that it belongs to, like "encoder.layer.3": up to the first number in the name of its node or of its
// weights; else that of what it computes with, or of the steps around it. Empty outside of numbered parts.
std::vector<std::string> layers_of(const Plan& plan, const Program& program);

// Per step the bytes of activations that are alive while it runs, without the gaps that packing leaves between them.
std::vector<std::size_t> live_bytes(const Program& program, const SymbolValues& symbols);

}  // namespace tandem
