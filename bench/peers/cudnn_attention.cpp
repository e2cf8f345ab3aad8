// cuDNN alone beside bench/gpu_bench: attention under the same names, by the best of the plans that its heuristics offer, found by timing
// them by turns, on operands of the same distribution. Of Tandem only the opening of the library is used.
//
//   gpu_cudnn     reads names from stdin, a line each ("Attention 8K causal"); answers each with a line of JSON
#include <algorithm>
#include <cmath>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "cudnn_alone.h"

namespace {

using namespace tandem;
namespace fe = cudnn_frontend;
using alone::Memory, alone::require;

constexpr std::int64_t kHeads = 24, kSize = 128;
constexpr int kRounds = 3;
enum Id : std::int64_t { kQ = 1, kK, kV, kOut };

// As many queries as keys, of one batch.
std::int64_t rows_of(const std::string& name) {
  static const std::map<std::string, std::int64_t> rows = {
      {"Attention 8K", 8192}, {"Attention 8K causal", 8192}, {"Attention 32K", 32768}, {"Attention 131K", 131072}};
  const auto found = rows.find(name);
  if (found == rows.end()) fail(ErrorCode::unsupported, "'{}' is none of its rows", name);
  return found->second;
}

class Attention {
 public:
  Attention(const std::string& name, cudnnHandle_t handle, cudaStream_t stream)
      : rows_(rows_of(name)), handle_(handle), stream_(stream), bytes_(static_cast<std::size_t>(kHeads * rows_ * kSize) * 2) {
    describe(name.ends_with("causal"));
    const auto sets = static_cast<std::size_t>(std::clamp(std::ceil(1e9 / (4.0 * static_cast<double>(bytes_))), 2.0, 64.0));
    for (std::size_t i = 0; i < 4 * sets; ++i) {
      memory_.push_back(std::make_unique<Memory>(bytes_));
      if (i % 4 != 3) alone::fill_normal(memory_.back()->data, bytes_, DType::bf16, 1, static_cast<unsigned>(i));
    }
    choose();
  }

  nlohmann::json measure() {
    return {{"us", time(best_, std::clamp(static_cast<int>(20000 / least_), 3, 500))},
            {"plan", plan_name_},
            {"plans", graph_.get_execution_plan_count()}};
  }

 private:
  void describe(bool causal) {
    graph_.set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    const std::vector<std::int64_t> dims = {1, kHeads, rows_, kSize}, strides = {kHeads * rows_ * kSize, rows_ * kSize, kSize, 1};
    const auto with = [&](Id id) {
      return graph_.tensor(fe::graph::Tensor_attributes().set_uid(id).set_name(std::to_string(id)).set_dim(dims).set_stride(strides));
    };
    auto options = fe::graph::SDPA_attributes()
                       .set_name("attention")
                       .set_generate_stats(false)
                       .set_attn_scale(1 / std::sqrt(static_cast<float>(kSize)));
    if (causal) options.set_causal_mask(true);
    const auto [out, stats] = graph_.sdpa(with(kQ), with(kK), with(kV), options);
    out->set_output(true).set_uid(kOut).set_dim(dims).set_stride(strides);
    require(graph_.validate());
    require(graph_.build_operation_graph(handle_));
    require(graph_.create_execution_plans({fe::HeurMode_t::A, fe::HeurMode_t::B}));
  }

  // Microseconds of a call.
  double time(std::int64_t plan, int calls) {
    return alone::microseconds(stream_, calls, [&](int i) {
      const std::size_t set = static_cast<std::size_t>(i) * 4 % memory_.size();
      std::unordered_map<std::int64_t, void*> pack;
      for (const Id id : {kQ, kK, kV, kOut}) pack[id] = memory_[set + static_cast<std::size_t>(id - kQ)]->data;
      require(graph_.execute_plan_at_index(handle_, pack, workspace_->data, plan));
    });
  }

  // The plan with the least time of any round; those that the first one finds far behind are left out of the others.
  void choose() {
    constexpr double kFarBehind = 1.3;
    std::map<std::int64_t, double> times;
    std::int64_t bytes = 0;
    for (std::int64_t plan = 0; plan < graph_.get_execution_plan_count(); ++plan) {
      std::int64_t needed = 0;
      if (graph_.build_plan_at_index(plan).is_bad() || graph_.get_workspace_size_plan_at_index(plan, needed).is_bad()) continue;
      bytes = std::max(bytes, needed);
      times[plan] = std::numeric_limits<double>::infinity();
    }
    workspace_.emplace(static_cast<std::size_t>(bytes));
    for (int round = 0; round < kRounds; ++round)
      for (auto& [plan, us] : times) {
        if (round > 0 && us > kFarBehind * least_) continue;
        us = std::min(us, time(plan, 3));
        if (us < least_) least_ = us, best_ = plan;
      }
    if (best_ < 0) fail(ErrorCode::unsupported, "no plan of cuDNN's runs it");
    require(graph_.get_plan_name_at_index(best_, plan_name_));
  }

  std::int64_t rows_;
  cudnnHandle_t handle_;
  cudaStream_t stream_;
  std::size_t bytes_;
  fe::graph::Graph graph_;
  std::vector<std::unique_ptr<Memory>> memory_;
  std::optional<Memory> workspace_;
  double least_ = std::numeric_limits<double>::infinity();
  std::int64_t best_ = -1;
  std::string plan_name_;
};

}  // namespace

int main() {
  std::optional<alone::Cudnn> cudnn;
  std::unique_ptr<Attention> attention;
  std::string held;
  for (std::string name; std::getline(std::cin, name);) {
    nlohmann::json answer = {{"name", name}};
    try {
      if (!cudnn) cudnn.emplace();
      if (name != held) {
        held.clear();
        attention.reset();  // before the next one takes memory
        attention = std::make_unique<Attention>(name, cudnn->handle, cudnn->stream);
        held = name;
      }
      answer.update(attention->measure());
      answer["cudnn"] = cuda::library(cuda::Which::cudnn).version();
    } catch (const std::exception& error) {
      answer["failed"] = error.what();
    }
    std::cout << answer.dump() << std::endl;
  }
}
