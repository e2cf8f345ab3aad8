#include "team/rank_messages.h"

namespace tandem {

using Json = nlohmann::json;

Json to_json(const RankReply& reply) {
  Json out = {{"nanoseconds", reply.nanoseconds}};
  if (reply.error)
    out["error"] = {{"code", static_cast<int>(reply.error->code())},
                    {"message", reply.error->message()},
                    {"node", reply.error->node()},
                    {"rank", reply.error->rank()}};
  if (!reply.through_host.empty()) out["through_host"] = reply.through_host;
  for (const TraceEvent& event : reply.trace) out["trace"].push_back({event.step, event.begin_ns, event.end_ns, event.waited_ns});
  for (const auto& [symbol, extent] : reply.measured) out["measured"][symbol] = extent;
  return out;
}

RankReply reply_from_json(const Json& message) {
  RankReply reply;
  reply.nanoseconds = message.value("nanoseconds", std::int64_t{0});
  reply.through_host = message.value("through_host", std::string());
  if (message.contains("error")) {
    const Json& e = message["error"];
    reply.error = Error(static_cast<ErrorCode>(e.at("code").get<int>()), e.at("message"), e.at("node"), e.at("rank"));
  }
  if (message.contains("trace"))
    for (const Json& event : message["trace"]) reply.trace.push_back({event[0], event[1], event[2], event[3]});
  if (message.contains("measured"))
    for (const auto& [symbol, extent] : message["measured"].items()) reply.measured[symbol] = extent.get<std::int64_t>();
  return reply;
}

Json to_json(const RankRequest& request, const std::byte* base, std::size_t block_bytes) {
  Json out = {{"size", block_bytes},     {"profile", request.profile}, {"trace", request.trace},
              {"inputs", Json::array()}, {"outputs", Json::array()},   {"symbols", Json::object()}};
  for (const auto& [name, value] : request.symbols) out["symbols"][name] = value;
  for (const std::byte* at : request.inputs) out["inputs"].push_back(at - base);
  for (const std::byte* at : request.outputs) out["outputs"].push_back(at - base);
  return out;
}

RankRequest request_from_json(const Json& message, std::byte* base) {
  RankRequest request;
  for (const auto& [name, value] : message.at("symbols").items()) request.symbols[name] = value.get<std::int64_t>();
  for (const Json& offset : message.at("inputs")) request.inputs.push_back(base + offset.get<std::size_t>());
  for (const Json& offset : message.at("outputs")) request.outputs.push_back(base + offset.get<std::size_t>());
  request.profile = message.at("profile");
  request.trace = message.at("trace");
  return request;
}

Json to_json(const RankStart& start) {
  const RankContextOptions& options = start.options;
  Json out = {{"rank", start.rank},
              {"threads", options.threads},
              {"step_deadline_ns", options.step_deadline.count()},
              {"rendezvous_deadline_ns", options.rendezvous_deadline.count()},
              {"dependent_launch", options.dependent_launch},
              {"same_plan", options.same_plan}};
  if (start.weight_budget) out["weight_budget"] = *start.weight_budget;
  return out;
}

RankStart start_from_json(const Json& message) {
  RankStart start;
  start.rank = message.at("rank");
  if (message.contains("weight_budget")) start.weight_budget = message["weight_budget"].get<std::size_t>();
  RankContextOptions& options = start.options;
  options.threads = message.at("threads");
  options.step_deadline = std::chrono::nanoseconds(message.at("step_deadline_ns").get<std::int64_t>());
  options.rendezvous_deadline = std::chrono::nanoseconds(message.at("rendezvous_deadline_ns").get<std::int64_t>());
  options.dependent_launch = message.at("dependent_launch");
  options.same_plan = message.at("same_plan");
  return start;
}

}  // namespace tandem
