#include "import/onnx/placements.h"

#include <algorithm>
#include <optional>
#include <set>

#include "core/check.h"
#include "import/onnx/node_reader.h"

namespace tandem::onnx_import {
namespace {

// Per device its block's position along each dimension that is split.
struct Layout {
  std::vector<std::pair<std::int64_t, std::int64_t>> split;  // dimension, number of shards
  std::vector<std::vector<std::int64_t>> blocks;             // by device
};

[[noreturn]] void refuse(const std::string& tensor, const std::string& why) {
  fail(ErrorCode::unsupported, "cannot place '{}': {}", tensor, why);
}
[[noreturn]] void reject(const std::string& tensor, const std::string& why) {
  fail(ErrorCode::invalid_model, "sharding of '{}': {}", tensor, why);
}

// Rank of each tensor whose type the file gives; negative axes need it.
std::map<std::string, std::int64_t> ranks_in(const onnx::GraphProto& graph) {
  std::map<std::string, std::int64_t> ranks;
  for (const auto* list : {&graph.input(), &graph.output(), &graph.value_info()})
    for (const onnx::ValueInfoProto& info : *list)
      if (info.type().tensor_type().has_shape()) ranks[info.name()] = info.type().tensor_type().shape().dim_size();
  for (const onnx::TensorProto& tensor : graph.initializer()) ranks[tensor.name()] = tensor.dims_size();
  return ranks;
}

std::vector<std::pair<std::int64_t, std::int64_t>> split_dims(const onnx::ShardingSpecProto& spec,
                                                              const std::map<std::string, std::int64_t>& ranks) {
  std::vector<std::pair<std::int64_t, std::int64_t>> split;
  std::set<std::int64_t> seen;
  const auto rank = ranks.find(spec.tensor_name());
  for (const onnx::ShardedDimProto& dim : spec.sharded_dim()) {
    std::int64_t axis = dim.axis(), shards = 1;
    if (axis < 0 && rank == ranks.end())
      refuse(spec.tensor_name(), fmt::format("axis {} counts from the back, and the file does not say how many dimensions it has", axis));
    if (axis < 0) axis += rank->second;
    if (axis < 0 || axis > 99 || (rank != ranks.end() && axis >= rank->second))
      reject(spec.tensor_name(), fmt::format("it has no axis {}", dim.axis()));
    if (!seen.insert(axis).second) reject(spec.tensor_name(), fmt::format("axis {} is given twice", axis));
    for (const onnx::SimpleShardedDimProto& part : dim.simple_sharding()) {
      if (part.num_shards() < 1) reject(spec.tensor_name(), fmt::format("axis {} has {} shards", axis, part.num_shards()));
      if (part.num_shards() > 1 && dim.simple_sharding_size() > 1)
        refuse(spec.tensor_name(), fmt::format("axis {} is split factor by factor", axis));
      shards = part.num_shards();
    }
    if (shards > 1) split.emplace_back(axis, shards);
  }
  return split;
}

// The devices that hold the block of each entry of the device list.
std::vector<std::vector<std::int64_t>> device_groups(const onnx::ShardingSpecProto& spec) {
  std::map<std::int64_t, std::vector<std::int64_t>> groups;
  for (const onnx::IntIntListEntryProto& entry : spec.index_to_device_group_map())
    groups[entry.key()].assign(entry.value().begin(), entry.value().end());
  std::vector<std::vector<std::int64_t>> lists;
  for (const std::int64_t device : spec.device()) lists.push_back(groups.contains(device) ? groups.at(device) : std::vector{device});
  return lists;
}

Layout layout_of(const onnx::ShardingSpecProto& spec, const std::map<std::string, std::int64_t>& ranks, int devices) {
  Layout layout{split_dims(spec, ranks), {}};
  const auto lists = device_groups(spec);
  std::int64_t blocks = 1;
  for (const auto& [axis, shards] : layout.split) {
    if (shards > devices) reject(spec.tensor_name(), fmt::format("{} shards for {} devices", shards, devices));
    blocks *= shards;
  }
  const bool whole = layout.split.empty();
  if (!whole && static_cast<std::int64_t>(lists.size()) != blocks)
    reject(spec.tensor_name(), fmt::format("{} blocks on a list of {} devices", blocks, lists.size()));
  layout.blocks.resize(static_cast<std::size_t>(devices));
  std::set<std::int64_t> seen;
  for (std::size_t i = 0; i < lists.size(); ++i)
    for (const std::int64_t device : lists[i]) {
      if (device < 0 || device >= devices) reject(spec.tensor_name(), fmt::format("there is no device {} among {}", device, devices));
      if (!seen.insert(device).second) refuse(spec.tensor_name(), fmt::format("device {} holds several blocks of it", device));
      std::int64_t rest = static_cast<std::int64_t>(i);  // row-major: the last dimension runs fastest
      auto& at = layout.blocks[static_cast<std::size_t>(device)];
      at.resize(layout.split.size());
      for (std::size_t d = layout.split.size(); d-- > 0; rest /= layout.split[d].second) at[d] = rest % layout.split[d].second;
    }
  if (static_cast<int>(seen.size()) != devices)
    refuse(spec.tensor_name(), fmt::format("it lies on {} of {} devices; a value lies on all ranks", seen.size(), devices));
  return layout;
}

// Axes, major first, along which the ranks' blocks of dimension d are numbered as in the layout; `free` are those that are left.
std::optional<std::vector<std::string>> find_axes(const Layout& layout, std::size_t d, const Mesh& mesh,
                                                  const std::set<std::string>& free) {
  std::vector<std::vector<std::string>> open = {{}};
  while (!open.empty()) {
    const std::vector<std::string> chosen = std::move(open.back());
    open.pop_back();
    std::int64_t product = 1;
    for (const std::string& axis : chosen) product *= mesh.size(axis);
    if (product > layout.split[d].second) continue;
    const auto index = [&](int rank) {
      std::int64_t at = 0;
      for (const std::string& axis : chosen) at = at * mesh.size(axis) + mesh.coordinate(rank, axis);
      return at;
    };
    bool same = product == layout.split[d].second;
    for (int rank = 0; same && rank < mesh.size(); ++rank) same = index(rank) == layout.blocks[static_cast<std::size_t>(rank)][d];
    if (same) return chosen;
    for (const std::string& axis : free)
      if (mesh.size(axis) > 1 && std::ranges::find(chosen, axis) == chosen.end()) {
        open.push_back(chosen);
        open.back().push_back(axis);
      }
  }
  return std::nullopt;
}

std::string placement_of(const onnx::ShardingSpecProto& spec, const Layout& layout, const Mesh& mesh) {
  std::set<std::string> free;
  for (const MeshAxis& axis : mesh.axes()) free.insert(axis.name);
  std::string text;
  for (std::size_t d = 0; d < layout.split.size(); ++d) {
    const auto axes = find_axes(layout, d, mesh, free);
    if (!axes)
      refuse(spec.tensor_name(), fmt::format("its {} blocks along dimension {} lie on the devices as along no axes of mesh {}",
                                             layout.split[d].second, layout.split[d].first, mesh.to_string()));
    for (const std::string& axis : *axes) {
      text += fmt::format("{}{}:{}", text.empty() ? "" : ",", layout.split[d].first, axis);
      free.erase(axis);
    }
  }
  return text.empty() ? "same" : text;
}

// The configuration for this many devices; null, with a notice, where there is none.
const onnx::DeviceConfigurationProto* choose(const onnx::ModelProto& model, int devices, std::vector<std::string>& notices) {
  const onnx::DeviceConfigurationProto* chosen = nullptr;
  std::string all;
  for (const onnx::DeviceConfigurationProto& c : model.configuration()) {
    all += fmt::format("{}'{}' of {} devices", all.empty() ? "" : ", ", c.name(), c.num_devices());
    if (c.num_devices() != devices) continue;
    if (chosen)
      fail(ErrorCode::unsupported, "the model has two configurations of {} devices, '{}' and '{}'; leave one", devices, chosen->name(),
           c.name());
    chosen = &c;
  }
  if (!chosen && !all.empty())
    notices.push_back(fmt::format("the file's sharding annotations are left aside: they are for {}, not for {} rank{}", all, devices,
                                  devices == 1 ? "" : "s"));
  return chosen;
}

}  // namespace

std::map<std::string, std::string> read_placements(const onnx::ModelProto& model, const Mesh& mesh, std::vector<std::string>& notices) {
  std::map<std::string, std::string> placements;
  const onnx::DeviceConfigurationProto* configuration = choose(model, mesh.size(), notices);
  if (!configuration || mesh.size() == 1) return placements;
  const auto ranks = ranks_in(model.graph());
  const auto read = [&](const onnx::NodeProto& node, const onnx::NodeDeviceConfigurationProto& of) {
    if (of.pipeline_stage() > 0)
      fail(ErrorCode::unsupported, "pipeline stage {} of configuration '{}': every rank runs the whole model", of.pipeline_stage(),
           of.configuration_id());
    for (const onnx::ShardingSpecProto& spec : of.sharding_spec()) {
      const auto is_it = [&](const std::string& name) { return name == spec.tensor_name(); };
      if (spec.tensor_name().empty() || (std::ranges::none_of(node.input(), is_it) && std::ranges::none_of(node.output(), is_it)))
        reject(spec.tensor_name(), "it is no input or output of the node");
      const std::string text = placement_of(spec, layout_of(spec, ranks, configuration->num_devices()), mesh);
      const auto [at, fresh] = placements.emplace(spec.tensor_name(), text);
      if (!fresh && at->second != text)
        refuse(spec.tensor_name(), fmt::format("it is to lie as {} for one node and as {} for another", at->second, text));
    }
  };
  for (const onnx::NodeProto& node : model.graph().node())
    for (const onnx::NodeDeviceConfigurationProto& of : node.device_configurations()) {
      const auto has_id = [&](const onnx::DeviceConfigurationProto& c) { return c.name() == of.configuration_id(); };
      try {
        if (std::ranges::none_of(model.configuration(), has_id))
          fail(ErrorCode::invalid_model, "the model has no device configuration '{}'", of.configuration_id());
        if (of.configuration_id() == configuration->name()) read(node, of);
      } catch (const Error& error) {
        throw Error(error.code(), error.message(), label(node));
      }
    }
  return placements;
}

}  // namespace tandem::onnx_import
