// Every pointwise op, alone or as a fused program: interpreted over blocks that stay in the first-level cache.
#include <algorithm>
#include <array>
#include <cstring>

#include "core/check.h"
#include "core/numeric.h"
#include "ops/kernel.h"
#include "ops/pointwise/blocks_cpu.h"
#include "ops/shape_rules.h"

namespace tandem::kernels {
namespace {

using namespace pointwise;

std::optional<Program> program_of(const OpCall& call) {
  if (call.op->name == "Pointwise") return Program::parse(call.attributes.text("program"));
  const auto statement = statement_for(call.op->name, call.attributes);
  if (!statement || !call.op->pointwise) return std::nullopt;
  return Program{{*statement}};
}

// An operand under broadcasting, seen over the result's elements in row-major order.
struct Source {
  enum class Way : std::uint8_t { dense, scalar, runs };
  DType type = DType::f32;
  Way way = Way::dense;
  Shape shape, strides;  // collapsed; used by `runs`
};

// Merges neighbouring dimensions that are walked as one.
Source source_of(DType type, const Shape& from, const Shape& over) {
  Source s{.type = type};
  const Shape strides = strides_over(from, over);
  for (std::size_t d = 0; d < over.size(); ++d) {
    if (over[d] == 1) continue;
    const bool merges = !s.shape.empty() && s.strides.back() == strides[d] * over[d];
    if (merges) {
      s.shape.back() *= over[d];
      s.strides.back() = strides[d];
    } else {
      s.shape.push_back(over[d]);
      s.strides.push_back(strides[d]);
    }
  }
  if (s.shape.empty() || (s.shape.size() == 1 && s.strides[0] == 0)) s.way = Source::Way::scalar;
  else if (s.shape.size() > 1 || s.strides[0] != 1) s.way = Source::Way::runs;
  return s;
}

// Elements begin … begin+count-1 of a source into a block, one run along the innermost dimension at a time.
void load_runs(const Source& s, const std::byte* base, std::int64_t begin, std::int64_t count, std::byte* block) {
  const std::int64_t length = s.shape.back(), stride = s.strides.back();
  const std::size_t size = is_real(s.type) ? sizeof(float) : sizeof(std::int64_t);
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t at = begin + done, column = at % length, run = std::min(length - column, count - done);
    std::int64_t offset = column * stride, rest = at / length;
    for (std::size_t d = s.shape.size() - 1; d-- > 0; rest /= s.shape[d]) offset += rest % s.shape[d] * s.strides[d];
    std::byte* to = block + static_cast<std::size_t>(done) * size;
    load_block(s.type, base + bytes(s.type, offset), to, stride == 0 ? 1 : run);
    if (stride == 0) fill_block(s.type, to, run);
    done += run;
  }
}

// A statement with the slots (blocks) it reads and writes.
struct Step {
  Function function;
  DType value, result;
  std::array<std::size_t, 3> in{};
  std::size_t arguments = 0, out = 0;
};

class PointwiseKernel final : public PreparedKernel {
 public:
  PointwiseKernel(const OpCall& call, const Program& program, int threads) : threads_(threads), result_(call.results.at(0).dtype) {
    const Shape shape = shape_of(call.results[0]);
    count_ = element_count(shape);
    std::vector<DType> types;
    for (std::size_t i = 0; i < call.operands.size(); ++i) {
      types.push_back(call.operand(i).dtype);
      sources_.push_back(source_of(types.back(), shape_of(call.operand(i)), shape));
    }
    slots_ = sources_.size();
    compile(program, types);
  }

  std::size_t workspace_bytes() const override { return static_cast<std::size_t>(threads_) * slots_ * kSlotBytes; }

  void run(const RunArgs& args) const override {
    const std::int64_t blocks = ceil_divide(count_, kBlockLength);
    args.pool().split(blocks, 8, [&](std::int64_t begin, std::int64_t end, int thread) {
      std::byte* memory = args.workspace + static_cast<std::size_t>(thread) * slots_ * kSlotBytes;
      std::array<std::byte*, kMaxSlots> slots{};
      for (std::size_t i = 0; i < slots_; ++i) slots[i] = memory + i * kSlotBytes;
      const std::int64_t longest = std::min(kBlockLength, count_);
      for (const Number& n : numbers_) {
        set_block(n.type, slots[n.slot], n.value);
        fill_block(n.type, slots[n.slot], longest);
      }
      for (std::size_t i = 0; i < sources_.size(); ++i) {
        if (sources_[i].way != Source::Way::scalar) continue;
        load_block(sources_[i].type, args.operands[i], slots[i], 1);
        fill_block(sources_[i].type, slots[i], longest);
      }
      for (std::int64_t block = begin; block < end; ++block) run_block(args, block * kBlockLength, slots);
    });
  }

  static constexpr std::size_t kMaxSlots = 64;
  std::size_t slots() const { return slots_; }

 private:
  static constexpr std::size_t kSlotBytes = kBlockLength * sizeof(std::int64_t);
  struct Number {
    std::size_t slot;
    DType type;
    double value;
  };

  // Temporaries share slots: one is free again after the last statement that reads it.
  void compile(const Program& program, const std::vector<DType>& operands) {
    const std::vector<DType> types = program.types(operands);
    std::vector<std::size_t> last(types.size(), 0), slot(types.size(), 0), free;
    for (std::size_t i = 0; i < types.size(); ++i)
      for (const Argument& a : program.statements[i].arguments)
        if (a.kind == Argument::Kind::temporary) last[static_cast<std::size_t>(a.index)] = i;
    for (std::size_t i = 0; i < types.size(); ++i) {
      const Statement& s = program.statements[i];
      Step step{
          .function = s.function, .value = program.number_type(i, operands, types), .result = types[i], .arguments = s.arguments.size()};
      if (free.empty()) free.push_back(slots_++);
      step.out = slot[i] = free.back();
      free.pop_back();
      for (std::size_t j = 0; j < s.arguments.size(); ++j) {
        const auto index = static_cast<std::size_t>(s.arguments[j].index);
        if (s.arguments[j].kind == Argument::Kind::number) {
          step.in[j] = slots_;
          numbers_.push_back({slots_++, step.value, s.arguments[j].number});
        } else {
          step.in[j] = s.arguments[j].kind == Argument::Kind::operand ? index : slot[index];
        }
      }
      for (std::size_t t = 0; t < i; ++t)
        if (last[t] == i) free.push_back(slot[t]);
      steps_.push_back(step);
    }
  }

  void run_block(const RunArgs& args, std::int64_t begin, std::array<std::byte*, kMaxSlots>& slots) const {
    const std::int64_t count = std::min(kBlockLength, count_ - begin);
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      const Source& s = sources_[i];
      if (s.way == Source::Way::runs) load_runs(s, args.operands[i], begin, count, slots[i]);
      if (s.way != Source::Way::dense) continue;
      const std::byte* from = args.operands[i] + bytes(s.type, begin);
      if (s.type == DType::f32 || s.type == DType::i64) slots[i] = const_cast<std::byte*>(from);  // blocks as they are; only read
      else load_block(s.type, from, slots[i], count);
    }
    std::byte* out = args.results[0] + bytes(result_, begin);
    const bool direct = result_ == DType::f32 || result_ == DType::i64;
    for (std::size_t i = 0; i < steps_.size(); ++i) {
      const bool final = i + 1 == steps_.size();
      run_step(steps_[i], slots, final && direct ? out : slots[steps_[i].out], count);
    }
    if (!direct) store_block(result_, slots[steps_.back().out], out, count);
  }

  static void run_step(const Step& step, const std::array<std::byte*, kMaxSlots>& slots, void* out, std::int64_t count) {
    if (step.function == Function::Cast) return cast_block(step.value, slots[step.in[0]], step.result, out, count);
    const auto inputs = [&]<typename T>(T) {
      std::array<const T*, 3> x{};
      for (std::size_t j = 0; j < step.arguments; ++j) x[j] = reinterpret_cast<const T*>(slots[step.in[j]]);
      return x;
    };
    if (is_real(step.value)) return run_reals(step.function, inputs(0.0f).data(), static_cast<float*>(out), count);
    const auto x = inputs(std::int64_t{0});
    if (step.function == Function::Where)
      return choose_ints(reinterpret_cast<const float*>(slots[step.in[0]]), x[1], x[2], static_cast<std::int64_t*>(out), count);
    if (step.result == DType::boolean) return compare_ints(step.function, x.data(), static_cast<float*>(out), count);
    run_ints(step.function, x.data(), static_cast<std::int64_t*>(out), count);
    if (step.result != DType::i64) cast_block(step.result, out, step.result, out, count);  // narrow integers wrap
  }

  int threads_;
  DType result_;
  std::int64_t count_ = 0;
  std::size_t slots_ = 0;
  std::vector<Source> sources_;
  std::vector<Step> steps_;
  std::vector<Number> numbers_;
};

std::optional<std::string> refuse(const OpCall& call) {
  const auto program = program_of(call);
  if (!program) return "it is no function of pointwise programs";
  std::vector<DType> operands;
  for (std::size_t i = 0; i < call.operands.size(); ++i) operands.push_back(call.operand(i).dtype);
  std::vector<DType> types = program->types(operands);
  std::size_t slots = operands.size() + types.size();
  for (const Statement& s : program->statements)
    slots +=
        static_cast<std::size_t>(std::ranges::count_if(s.arguments, [](const Argument& a) { return a.kind == Argument::Kind::number; }));
  types.insert(types.end(), operands.begin(), operands.end());
  for (const DType type : types)
    if (!is_block_type(type)) return fmt::format("blocks hold no {}", to_string(type));
  if (slots > PointwiseKernel::kMaxSlots) return "the program is too long";
  return std::nullopt;
}

std::unique_ptr<PreparedKernel> prepare(const PrepareArgs& args) {
  return std::make_unique<PointwiseKernel>(args.call, program_of(args.call).value(), args.threads);
}

}  // namespace

extern const KernelDef pointwise;
const KernelDef pointwise = {
    .name = "pointwise",
    .op = "",
    .refuse = refuse,
    .prepare = prepare,
    .in_place_operand = 0,
};

}  // namespace tandem::kernels
