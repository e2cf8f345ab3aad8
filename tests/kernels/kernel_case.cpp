#include "kernels/kernel_case.h"

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <random>

#include "comm/group.h"
#include "core/check.h"
#include "device/auxiliary_streams.h"
#include "graph/measured.h"
#include "ops/ops.h"
#include "ops/shape_rules.h"

namespace tandem::test {

OpCall call_of(const KernelCase& c) {
  OpCall call;
  call.op = all_ops().find(c.op);
  check(call.op != nullptr, "the op exists");
  call.attributes = Attributes(&call.op->fields);
  for (const auto& [name, value] : c.attributes) call.attributes.set(name, value);
  for (const auto& operand : c.operands) {
    if (operand) call.operands.emplace_back(Type{operand->dtype(), dims_of_shape(operand->shape())});
    else call.operands.emplace_back(std::nullopt);
  }
  call.results = call.op->infer(call);
  const auto measured = measured_extent(call);
  return measured ? call.bound({{measured->symbol, measured->bound.constant()}}) : call;
}

std::optional<std::string> refusal_of(const KernelCase& c) { return refusal(*find_kernel(c.kernel), call_of(c)); }

bool is_for_ranks(const KernelDef& kernel) {
  const OpDef* op = all_ops().find(kernel.op);
  return kernel.sent_bytes || (op && op->collective);
}

bool on_cuda() {
  const char* device = std::getenv("TANDEM_TEST_DEVICE");
  return device && std::string_view(device) == "cuda";
}

namespace {

// Rows by the kernel of a GPU that ran them.
struct Counts final : testing::Environment {
  std::mutex mutex;  // ranks are threads in some tests
  std::map<std::string, int> rows;
  void TearDown() override {
    for (const auto& [kernel, count] : rows) std::printf("[ cuda ] %d rows on %s\n", count, kernel.c_str());
  }
};

// "cuda_host (Reduce i32): ", and why no kernel for the op takes it.
std::string through_host(const KernelDef& host, const OpCall& call, bool exact) {
  std::vector<std::string> own, others;  // of kernels for this op, and for any
  for (const KernelDef* kernel : kernels_of(call.op->name, "cuda"))
    if (const auto reason = refusal(*kernel, call, exact)) (kernel->op.empty() ? others : own).push_back(*reason);
  return fmt::format("{} ({} {}): {}", host.name, call.op->name, to_string(call.results.at(0).dtype),
                     fmt::join(own.empty() ? others : own, "; "));
}

// What a GPU takes for a row that names a kernel of the CPU.
const KernelDef* on_test_device(const KernelDef* kernel, const OpCall& call, bool exact) {
  static Counts* counts = on_cuda() ? static_cast<Counts*>(testing::AddGlobalTestEnvironment(new Counts)) : nullptr;
  if (!counts || (kernel->device == "cuda" && !refusal(*kernel, call))) return kernel;
  std::vector<const KernelDef*> others = kernels_of(call.op->name, "cuda");
  const std::string same = fmt::format("cuda_{}", kernel->name);  // the one that does it in the same way, where there are several
  std::ranges::stable_partition(others, [&](const KernelDef* other) { return other->name == same; });
  for (const KernelDef* other : others)
    if (!refusal(*other, call, exact)) {
      const std::lock_guard lock(counts->mutex);
      ++counts->rows[other->through_host ? through_host(*other, call, exact) : std::string(other->name)];
      return other;
    }
  return kernel;
}

// Bytes that memory on the device begins past an aligned address, as that of callers may.
std::size_t shift_of(DType dtype) {
  return std::getenv("TANDEM_TEST_UNALIGNED") ? static_cast<std::size_t>(std::max(8, bits(dtype))) / 8 : 0;
}

// Results of the extents that were measured, from the start of those that have room for the most.
std::vector<Tensor> settled(const OpCall& call, std::vector<Tensor> results) {
  const auto measured = measured_extent(call);
  if (!measured) return results;
  const SymbolValues symbols = {{measured->symbol, results.back().int_at(0)}};
  const std::vector<Type> types = call.op->infer(call);
  for (std::size_t i = 0; i < results.size(); ++i) {
    Shape shape;
    for (const Dim& d : types[i].dims) shape.push_back(d.evaluate(symbols));
    Tensor part(types[i].dtype, shape);
    check(part.size_bytes() <= results[i].size_bytes(), "no more is measured than there is room for");
    if (part.size_bytes() != 0) std::memcpy(part.mutable_data(), results[i].data(), part.size_bytes());
    results[i] = std::move(part);
  }
  return results;
}

// A kernel of a device: operands there, results back.
std::vector<Tensor> run_on_device(const KernelCase& c, const KernelDef& kernel, const OpCall& call) {
  const std::shared_ptr<Device> device = open_device(kernel.device, c.group ? c.group->rank() : 0);
  const OnDevice on_device(*device);
  const std::unique_ptr<Stream> stream = device->make_stream(c.threads);
  std::vector<DeviceMemory> memory;
  const auto add = [&](std::size_t bytes, std::size_t shift) {
    memory.emplace_back(device, std::max<std::size_t>(bytes, 1) + shift);
    return memory.back().data() + shift;
  };
  std::vector<const std::byte*> operands, weights(c.operands.size(), nullptr);
  for (std::size_t i = 0; i < c.operands.size(); ++i) {
    const auto& operand = c.operands[i];
    const bool weight = std::ranges::find(c.weights, i) != c.weights.end();
    std::byte* at = operand ? add(operand->size_bytes(), weight ? 0 : shift_of(operand->dtype())) : nullptr;
    if (operand) device->copy(at, operand->data(), operand->size_bytes(), *stream);
    operands.push_back(at);
  }
  for (const std::size_t i : c.weights) weights[i] = operands[i];
  stream->wait(Deadline::after(std::chrono::seconds(20)));
  const std::unique_ptr<Packed> packed = kernel.pack ? kernel.pack(call, weights) : nullptr;
  for (const std::size_t i : c.weights)
    if (packed && kernel.packs_operand && kernel.packs_operand(call, i)) operands[i] = nullptr;
  std::vector<Tensor> results;
  std::vector<std::byte*> outputs;
  for (const Type& type : call.results) {
    results.emplace_back(type.dtype, shape_of(type));
    if (results.back().size_bytes() != 0)
      std::memset(results.back().mutable_data(), 0x5a, results.back().size_bytes());  // must be overwritten
    outputs.push_back(add(results.back().size_bytes(), shift_of(type.dtype)));
    device->copy(outputs.back(), results.back().data(), results.back().size_bytes(), *stream);
  }
  const auto prepared = kernel.prepare({.call = call,
                                        .weights = weights,
                                        .packed = packed.get(),
                                        .threads = c.threads,
                                        .group = c.group,
                                        .device = device.get(),
                                        .algorithm = c.algorithm,
                                        .tf32 = c.tf32,
                                        .exact = c.exact});
  std::byte* workspace = add(prepared->workspace_bytes(), 0);
  AuxiliaryStreams auxiliary(*device, kernel.auxiliary_streams);
  prepared->run({operands, outputs, workspace, *stream, Deadline::after(std::chrono::seconds(20)), false, 0, nullptr, auxiliary.streams()});
  for (std::size_t i = 0; i < results.size(); ++i) device->copy(results[i].mutable_data(), outputs[i], results[i].size_bytes(), *stream);
  stream->wait(Deadline::after(std::chrono::seconds(20)));
  return settled(call, std::move(results));
}

}  // namespace

std::vector<std::string> algorithms_of(const KernelCase& c) {
  const KernelDef* kernel = find_kernel(c.kernel);
  check(kernel != nullptr, "the kernel exists");
  if (!kernel->algorithms) return {};
  const OpCall call = call_of(c);
  const std::shared_ptr<Device> device = open_device(kernel->device, 0);
  const std::vector<const std::byte*> weights(c.operands.size(), nullptr);
  return kernel->algorithms({.call = call, .weights = weights, .device = device.get(), .tf32 = c.tf32});
}

std::vector<Tensor> run_kernel(const KernelCase& c) {
  const KernelDef* kernel = find_kernel(c.kernel);
  check(kernel != nullptr, "the kernel exists");
  const OpCall call = call_of(c);
  kernel = on_test_device(kernel, call, c.exact);
  if (kernel->device != "cpu") return run_on_device(c, *kernel, call);
  if (const auto reason = kernel->refuse ? kernel->refuse(call) : std::nullopt) fail(ErrorCode::unsupported, "{}", *reason);

  std::vector<const std::byte*> operands, weights(c.operands.size(), nullptr);
  std::vector<Tensor> copies;
  for (const auto& operand : c.operands) operands.push_back(operand ? operand->data() : nullptr);
  for (const std::size_t i : c.weights) weights[i] = operands[i];
  const std::unique_ptr<Packed> packed = kernel->pack ? kernel->pack(call, weights) : nullptr;
  for (const std::size_t i : c.weights)
    if (packed && kernel->packs_operand && kernel->packs_operand(call, i)) operands[i] = nullptr;

  std::vector<Tensor> results;
  for (const Type& type : call.results) results.emplace_back(type.dtype, shape_of(type));
  std::vector<std::byte*> outputs;
  for (Tensor& result : results) {
    if (result.size_bytes() != 0) std::memset(result.mutable_data(), 0x5a, result.size_bytes());  // must be overwritten
    outputs.push_back(result.mutable_data());
  }
  if (c.in_place) {
    const auto from = static_cast<std::size_t>(kernel->in_place_operand);
    check(results[0].size_bytes() == c.operands[from]->size_bytes(), "in place");
    if (results[0].size_bytes() != 0) std::memcpy(outputs[0], operands[from], results[0].size_bytes());
    operands[from] = outputs[0];
  }
  const auto prepared = kernel->prepare(
      {.call = call, .weights = weights, .packed = packed.get(), .threads = c.threads, .group = c.group, .tf32 = c.tf32, .exact = c.exact});
  Tensor workspace(DType::u8, {static_cast<std::int64_t>(prepared->workspace_bytes())});
  ThreadPool pool(c.threads);
  prepared->run({operands, outputs, workspace.mutable_data(), pool, Deadline::after(std::chrono::seconds(20))});
  return settled(call, std::move(results));
}

std::vector<Tensor> evaluate(const KernelCase& c) {
  std::vector<Tensor> operands;
  for (const auto& operand : c.operands) operands.push_back(operand.value_or(Tensor()));
  const OpCall call = call_of(c);
  return call.op->evaluate(call, operands);
}

Tensor random_tensor(DType dtype, Shape shape, unsigned seed, double scale) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, scale);
  std::vector<double> values(static_cast<std::size_t>(element_count(shape)));
  for (double& v : values) v = normal(random);
  return Tensor::of(dtype, std::move(shape), values);
}

void expect_close(const Tensor& actual, const Tensor& expected, double tolerance, const std::string& what) {
  ASSERT_EQ(actual.dtype(), expected.dtype()) << what;
  ASSERT_EQ(actual.shape(), expected.shape()) << what;
  double largest = 1e-3, error = 0;
  std::int64_t worst = 0;
  for (std::int64_t i = 0; i < expected.count(); ++i)
    if (std::isfinite(expected.at(i))) largest = std::max(largest, std::fabs(expected.at(i)));
  for (std::int64_t i = 0; i < expected.count(); ++i) {
    const double a = actual.at(i), e = expected.at(i);
    ASSERT_EQ(std::isnan(a), std::isnan(e)) << what << ": element " << i << " is " << a << ", expected " << e;
    if (std::isnan(e) || a == e) continue;
    if (!(std::fabs(a - e) <= error)) error = std::fabs(a - e), worst = i;
  }
  EXPECT_LE(error, tolerance * largest) << what << ": element " << worst << " is " << actual.at(worst) << ", expected "
                                        << expected.at(worst);
}

void expect_kernel_matches_op(const KernelCase& c, double tolerance) {
  std::string what = c.kernel;
  for (const auto& operand : c.operands)
    what += operand ? fmt::format(" {}{}", to_string(operand->dtype()), to_string(operand->shape())) : " -";
  const std::vector<Tensor> actual = run_kernel(c), expected = evaluate(c);
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i) expect_close(actual[i], expected[i], tolerance, fmt::format("{} result {}", what, i));
}

double tolerance_of(DType dtype) {
  if (dtype == DType::f16) return 2e-3;
  if (dtype == DType::bf16) return 1.6e-2;
  return 1e-5;
}

}  // namespace tandem::test
