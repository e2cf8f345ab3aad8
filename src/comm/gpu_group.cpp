#include "comm/gpu_group.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "core/check.h"
#include "device/device.h"

namespace tandem {
namespace {

std::vector<std::string> exchange_texts(Group& group, const std::string& mine, Deadline deadline) {
  std::vector<std::string> texts;
  for (const auto& blob : group.exchange(std::as_bytes(std::span(mine)), deadline))
    texts.emplace_back(reinterpret_cast<const char*>(blob.data()), blob.size());
  return texts;
}

std::vector<GpuPlace> exchange_places(Group& control, const Device& device, Deadline deadline) {
  const Host here = this_host();
  const std::string mine = fmt::format("{}\n{}\n{}\n{}", here.name, here.id, getpid(), device.id());
  std::vector<GpuPlace> places;
  for (const std::string& text : exchange_texts(control, mine, deadline)) {
    GpuPlace place{.rank = control.members()[places.size()]};
    std::istringstream lines(text);
    std::string process;
    for (std::string* field : {&place.host.name, &place.host.id, &process, &place.gpu})
      check(static_cast<bool>(std::getline(lines, *field)), "a rank says where its GPU is");
    place.process = std::atoi(process.c_str());
    places.push_back(std::move(place));
  }
  return places;
}

std::optional<std::string> shared_gpu(std::span<const GpuPlace> places, bool refuse_threads) {
  for (std::size_t b = 0; b < places.size(); ++b)
    for (std::size_t a = 0; a < b; ++a) {
      if (places[a].host.id != places[b].host.id || places[a].gpu != places[b].gpu) continue;
      const int first = places[a].rank, second = places[b].rank;
      if (refuse_threads && places[a].process == places[b].process)
        fail(ErrorCode::unsupported,
             "ranks {} and {} are threads of one process and share one GPU, where the work of each would wait for the other's: "
             "make ranks processes, or give each a GPU of its own",
             first, second);
      return fmt::format("ranks {} and {} share one GPU", first, second);
    }
  return std::nullopt;
}

// Why the ranks cannot use it; null if all can.
std::optional<std::string> agreed_refusal(const GpuBackend& backend, Group& control, Device& device, std::span<const GpuPlace> places,
                                          Deadline deadline) {
  const std::string mine = backend.refuse(device, places).value_or("");
  const std::vector<std::string> all = exchange_texts(control, mine, deadline);
  for (std::size_t r = 0; r < all.size(); ++r)
    if (!all[r].empty()) return fmt::format("{} on rank {}: {}", backend.name, control.members()[r], all[r]);
  return std::nullopt;
}

std::string wanted_backend(const GpuGroupOptions& options) {
  if (!options.backend.empty()) return options.backend;
  const char* value = std::getenv("TANDEM_GPU_GROUP");
  return value ? value : "";
}

}  // namespace

std::optional<std::string> different_hosts(std::span<const GpuPlace> places) {
  for (const GpuPlace& place : places) {
    const Host &first = places[0].host, &other = place.host;
    if (other.id == first.id) continue;
    const std::string_view how = other.name == first.name ? " too, under another kernel or in another network namespace" : "";
    return fmt::format("rank {} is on the host '{}', rank {} on '{}'{}", places[0].rank, first.name, place.rank, other.name, how);
  }
  return std::nullopt;
}

std::shared_ptr<Registration> GpuGroup::register_memory(std::shared_ptr<const DeviceMemory>, std::shared_ptr<Registration>, Deadline) {
  return nullptr;
}

std::unique_ptr<GpuGroup> make_gpu_group(Group& control, Device& device, const GpuGroupOptions& options, std::string* why) {
  const std::string wanted = wanted_backend(options);
  const std::vector<std::string> asked = exchange_texts(control, wanted, options.deadline);
  for (std::size_t r = 1; r < asked.size(); ++r)
    if (asked[r] != asked[0])
      throw Error(ErrorCode::mismatch,
                  fmt::format("ranks {} and {} disagree on what carries collectives between GPUs: '{}' and '{}'", control.members()[0],
                              control.members()[r], asked[0], asked[r]),
                  {}, control.members()[r]);
  const auto none = [&](const std::string& reason) -> std::unique_ptr<GpuGroup> {
    if (!wanted.empty() && wanted != "host") fail(ErrorCode::unsupported, "collectives cannot go through {}: {}", wanted, reason);
    if (why) *why = reason;
    return nullptr;
  };
  if (wanted == "host") return none("TANDEM_GPU_GROUP asks for the host");
  if (device.is_host()) return none("the ranks run on CPUs");
  const std::vector<GpuPlace> places = exchange_places(control, device, options.deadline);
  if (const auto reason = shared_gpu(places, options.refuse_threads_on_one_gpu)) return none(*reason);
  std::vector<std::string> reasons;
  for (const GpuBackend& backend : gpu_backends()) {
    if (!wanted.empty() && wanted != backend.name) continue;
    if (const auto reason = agreed_refusal(backend, control, device, places, options.deadline)) {
      reasons.push_back(*reason);
      continue;
    }
    std::string trouble;
    if (auto group = backend.make(control, device, options.deadline, &trouble)) return group;
    reasons.push_back(fmt::format("{}: {}", backend.name, trouble));
  }
  return none(reasons.empty() ? "this program was built without it" : fmt::format("{}", fmt::join(reasons, "; ")));
}

}  // namespace tandem
