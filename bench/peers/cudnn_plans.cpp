// What cuDNN alone offers for one convolution of f16 with its channels last: every plan of its heuristics, also those that Tandem does not
// take, with the time to build it and the time it runs. Of Tandem only the opening of the library is used.
//
//   gpu_cudnn_plans     reads convolutions from stdin, a line each: x as NxCxHxW, the weight as MxKxK, the stride, then what follows of
//                       "bias", "residual", "relu" ("32x64x56x56 64x3x3 1 bias relu"); answers each plan with a line of JSON
#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "cudnn_alone.h"

namespace {

using namespace tandem;
namespace fe = cudnn_frontend;
using alone::require;
using Dims = std::vector<std::int64_t>;

constexpr int kCalls = 20;  // in a graph
enum Id : std::int64_t { kX = 1, kWeight, kResult, kBias, kResidual };

struct Convolution {
  Dims x, w, y;
  std::int64_t stride = 1;
  std::set<std::string> finish;
};

Dims numbers_of(std::string text) {
  std::ranges::replace(text, 'x', ' ');
  std::istringstream words(text);
  return {std::istream_iterator<std::int64_t>(words), {}};
}

Convolution parse(const std::string& line) {
  std::istringstream words(line);
  std::string x, w, word;
  Convolution c;
  words >> x >> w >> c.stride;
  while (words >> word) c.finish.insert(word);
  c.x = numbers_of(x), c.w = numbers_of(w);
  if (c.x.size() != 4 || c.w.size() != 3 || c.stride < 1) fail(ErrorCode::invalid_argument, "'{}' is no convolution", line);
  c.w.insert(c.w.begin() + 1, c.x[1]);
  c.y = {c.x[0], c.w[0], 0, 0};
  for (std::size_t d : {2u, 3u}) c.y[d] = (c.x[d] + c.w[d] / 2 * 2 - c.w[d]) / c.stride + 1;
  return c;
}

class Plans : public fe::graph::Graph {
 public:
  explicit Plans(const Convolution& c, cudnnHandle_t handle) {
    set_io_data_type(fe::DataType_t::HALF).set_intermediate_data_type(fe::DataType_t::FLOAT).set_compute_data_type(fe::DataType_t::FLOAT);
    const auto with = [&](Id id, const Dims& dims) {
      return tensor(fe::graph::Tensor_attributes().set_uid(id).set_name(std::to_string(id)).set_dim(dims).set_stride(last(dims)));
    };
    const Dims pad = {c.w[2] / 2, c.w[3] / 2};
    auto y = conv_fprop(with(kX, c.x), with(kWeight, c.w),
                        fe::graph::Conv_fprop_attributes().set_padding(pad).set_stride({c.stride, c.stride}).set_dilation({1, 1}));
    const auto step = [](fe::PointwiseMode_t mode) { return fe::graph::Pointwise_attributes().set_mode(mode); };
    if (c.finish.contains("residual")) y = pointwise(y, with(kResidual, c.y), step(fe::PointwiseMode_t::ADD));
    if (c.finish.contains("bias")) y = pointwise(y, with(kBias, {1, c.y[1], 1, 1}), step(fe::PointwiseMode_t::ADD));
    if (c.finish.contains("relu")) y = pointwise(y, step(fe::PointwiseMode_t::RELU_FWD));
    y->set_output(true).set_uid(kResult).set_dim(c.y).set_stride(last(c.y));
    require(validate());
    require(build_operation_graph(handle));
  }
  std::vector<int> numeric_notes(std::int64_t place) const {
    std::vector<int> notes;
    for (const fe::NumericalNote_t note : plans.numeric_notes.at(static_cast<std::size_t>(place)))
      if (note != fe::NumericalNote_t::NOT_SET) notes.push_back(static_cast<int>(note));
    return notes;
  }

 private:
  static Dims last(const Dims& d) { return {d[1] * d[2] * d[3], 1, d[1] * d[3], d[1]}; }
};

// Memory of the GPU, of zeros: none of the kernels looks at what it multiplies.
struct Memory : alone::Memory {
  explicit Memory(std::size_t bytes) : alone::Memory(bytes) { require(cudaMemset(data, 0, bytes)); }
  explicit Memory(const Dims& dims) : Memory(static_cast<std::size_t>(dims[0] * dims[1] * dims[2] * dims[3]) * 2) {}
};

nlohmann::json measure(Plans& plans, std::int64_t place, const Convolution& c, cudnnHandle_t handle, cudaStream_t stream) {
  nlohmann::json answer;
  const auto begin = std::chrono::steady_clock::now();
  require(plans.build_plan_at_index(place));
  answer["build_ms"] = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  std::int64_t bytes = 0;
  require(plans.get_workspace_size_plan_at_index(place, bytes));
  answer["workspace"] = bytes;
  const Memory x(c.x), w(c.w), y(c.y), bias(Dims{1, c.y[1], 1, 1}), residual(c.y), workspace(static_cast<std::size_t>(bytes));
  std::unordered_map<std::int64_t, void*> pack = {{kX, x.data}, {kWeight, w.data}, {kResult, y.data}};
  if (c.finish.contains("bias")) pack[kBias] = bias.data;
  if (c.finish.contains("residual")) pack[kResidual] = residual.data;
  answer["us"] =
      alone::microseconds(stream, kCalls, [&](int) { require(plans.execute_plan_at_index(handle, pack, workspace.data, place)); });
  return answer;
}

void answer_all(const std::string& line, cudnnHandle_t handle, cudaStream_t stream) {
  const Convolution c = parse(line);
  Plans plans(c, handle);
  std::set<std::string> seen;
  for (const auto& [mode, word] :
       {std::pair(fe::HeurMode_t::A, "A"), std::pair(fe::HeurMode_t::B, "B"), std::pair(fe::HeurMode_t::FALLBACK, "fallback")}) {
    std::int64_t place = plans.get_execution_plan_count();
    if (plans.create_execution_plans({mode}).is_bad()) continue;
    for (; place < plans.get_execution_plan_count(); ++place) {
      std::string name;
      require(plans.get_plan_name_at_index(place, name));
      nlohmann::json answer = {{"conv", line}, {"mode", word}, {"plan", name}, {"numeric_notes", plans.numeric_notes(place)}};
      std::vector<fe::BehaviorNote_t> notes;
      require(plans.get_behavior_notes_for_plan_at_index(place, notes));
      answer["compiles"] = std::ranges::count(notes, fe::BehaviorNote_t::RUNTIME_COMPILATION) > 0;
      try {
        if (!seen.insert(name).second) answer["again"] = true;
        else answer.update(measure(plans, place, c, handle, stream));
      } catch (const std::exception& error) {  // one that is offered, but does not run
        answer["failed"] = error.what();
      }
      std::cout << answer.dump() << std::endl;
    }
  }
}

}  // namespace

int main() {
  try {
    const alone::Cudnn cudnn;
    for (std::string line; std::getline(std::cin, line);) try {
        answer_all(line, cudnn.handle, cudnn.stream);
      } catch (const std::exception& error) {
        std::cout << nlohmann::json{{"conv", line}, {"failed", error.what()}}.dump() << std::endl;
      }
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
