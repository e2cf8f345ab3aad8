// The fallback of GPUs: operands to the host, a kernel of the CPU there, results back. Slow, but every op that the CPU runs runs.
#include <vector>

#include "core/check.h"
#include "core/stored_bytes.h"
#include "device/cpu/thread_pool.h"
#include "device/cuda/runtime.h"
#include "ops/kernel.h"
#include "ops/rule_cpu.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

// Memory of the host that the GPU can copy from and to by itself.
class Pinned {
 public:
  explicit Pinned(std::size_t bytes) {
    void* memory = nullptr;
    if (bytes > 0 && cudaMallocHost(&memory, bytes) != cudaSuccess) {
      cudaGetLastError();
      fail(ErrorCode::out_of_memory, "no {} bytes of the host's memory that a GPU can copy from are free", bytes);
    }
    data_ = static_cast<std::byte*>(memory);
  }
  ~Pinned() { cuda::free_host(data_); }
  Pinned(const Pinned&) = delete;
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
};

class Host final : public PreparedKernel {
 public:
  explicit Host(const PrepareArgs& args) : pool_(args.threads) {
    const OpCall& call = args.call;
    for (std::size_t i = 0; i < call.operands.size(); ++i) add(call.has_operand(i) ? &call.operand(i) : nullptr, operand_bytes_);
    for (const Type& type : call.results) add(&type, result_bytes_);
    const std::vector<const std::byte*> no_weights(call.operands.size(), nullptr);
    PrepareArgs inner{call, no_weights, nullptr, args.threads, args.group};
    kernel_ = kernel_by_rule(call, "cpu")->prepare(inner);
    const std::size_t workspace = total_;
    memory_ = std::make_unique<Pinned>(total_ + kernel_->workspace_bytes());
    workspace_ = memory_->data() + workspace;
    for (std::size_t i = 0; i < offsets_.size(); ++i) {
      std::byte* at = offsets_[i] == kAbsent ? nullptr : memory_->data() + offsets_[i];
      if (i < operand_bytes_.size()) operands_.push_back(at);
      else results_.push_back(at);
    }
  }

  void run(const RunArgs& args) const override {
    const cudaStream_t stream = cuda::handle_of(args.stream);
    for (std::size_t i = 0; i < operand_bytes_.size(); ++i)
      if (args.operands[i] && operand_bytes_[i] > 0)
        cuda::check(
            cudaMemcpyAsync(const_cast<std::byte*>(operands_[i]), args.operands[i], operand_bytes_[i], cudaMemcpyDeviceToHost, stream),
            "copying to the host");
    stream_ = &static_cast<cuda::CudaStream&>(args.stream);
    limit_ = args.deadline.limit();
    cuda::check(cudaLaunchHostFunc(
                    stream, [](void* self) { static_cast<const Host*>(self)->compute(); }, const_cast<Host*>(this)),
                "giving work to the host");
    for (std::size_t i = 0; i < result_bytes_.size(); ++i)
      if (result_bytes_[i] > 0)
        cuda::check(cudaMemcpyAsync(args.results[i], results_[i], result_bytes_[i], cudaMemcpyHostToDevice, stream),
                    "copying from the host");
  }

 private:
  static constexpr std::size_t kAbsent = static_cast<std::size_t>(-1);

  void add(const Type* type, std::vector<std::size_t>& sizes) {
    const std::size_t size = type ? stored_bytes(type->dtype, element_count(shape_of(*type))) : 0;
    sizes.push_back(size);
    offsets_.push_back(type ? total_ : kAbsent);
    total_ += aligned_size(size);
  }

  // In a thread of the driver, which calls nothing of CUDA.
  void compute() const noexcept {
    try {
      kernel_->run({operands_, results_, workspace_, pool_, Deadline::after(limit_)});
    } catch (...) {
      stream_->failed(std::current_exception());
    }
  }

  mutable ThreadPool pool_;
  std::unique_ptr<PreparedKernel> kernel_;
  std::unique_ptr<Pinned> memory_;
  std::byte* workspace_ = nullptr;
  std::vector<std::size_t> offsets_, operand_bytes_, result_bytes_;
  std::size_t total_ = 0;
  std::vector<const std::byte*> operands_;
  std::vector<std::byte*> results_;
  mutable cuda::CudaStream* stream_ = nullptr;
  mutable std::chrono::nanoseconds limit_{};
};

std::optional<std::string> refuse(const OpCall& call) {
  if (kernel_by_rule(call, "cpu")) return std::nullopt;
  return "no kernel of the CPU can run it either";
}

}  // namespace

extern const KernelDef cuda_host;
const KernelDef cuda_host = {
    .name = "cuda_host",
    .op = "",
    .refuse = refuse,
    .prepare = [](const PrepareArgs& args) -> std::unique_ptr<PreparedKernel> { return std::make_unique<Host>(args); },
    .rank = 1000,
    .in_place_operand = 0,  // whatever op: operands are read before results are written
    .device = "cuda",
    .through_host = true,
};

}  // namespace tandem::kernels
