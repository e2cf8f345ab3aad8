// What leader and rank process tell each other over their channel.
#pragma once

#include <nlohmann/json.hpp>

#include "team/rank_link.h"

namespace tandem {

// Descriptors that travel with the first message, in this order; without `plan` the engine's own is run.
enum class StartDescriptor { region, block, engine, plan };

nlohmann::json to_json(const RankReply& reply);
RankReply reply_from_json(const nlohmann::json& message);

// Addresses become offsets into the block that starts at `base`.
nlohmann::json to_json(const RankRequest& request, const std::byte* base, std::size_t block_bytes);
RankRequest request_from_json(const nlohmann::json& message, std::byte* base);

// Rank, options and budget; the rest travels as descriptors.
nlohmann::json to_json(const RankStart& start);
RankStart start_from_json(const nlohmann::json& message);

}  // namespace tandem
