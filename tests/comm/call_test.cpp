// What one rank can refuse alone, and the shapes of outputs.
#include <gtest/gtest.h>

#include "comm/group.h"

namespace tandem {
namespace {

float memory[64];

CollectiveCall call_of(Collective kind, std::span<const std::int64_t> dims) {
  CollectiveCall call = {.kind = kind, .dims = dims, .in = memory, .out = memory + 32};
  if (info(kind).reduces) call.reduction = Reduction::sum;
  return call;
}

void expect_refused(const CollectiveCall& call, ErrorCode code, const std::string& text) {
  try {
    check_call(call, 4);
    ADD_FAILURE() << to_string(call) << " was accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code);
    EXPECT_NE(e.message().find(text), std::string::npos) << e.what();
  }
}

TEST(Call, OutputDims) {
  static const std::int64_t dims[] = {4, 8};
  const auto out = [&](Collective kind, int axis) {
    CollectiveCall call = call_of(kind, dims);
    call.axis = axis;
    return collective_output_dims(call, 4);
  };
  EXPECT_EQ(out(Collective::all_reduce, 1), (Shape{4, 8}));
  EXPECT_EQ(out(Collective::all_gather, 1), (Shape{4, 32}));
  EXPECT_EQ(out(Collective::broadcast, 0), (Shape{4, 8}));
  EXPECT_EQ(out(Collective::reduce, 0), (Shape{4, 8}));
  EXPECT_EQ(out(Collective::reduce_scatter, 0), (Shape{1, 8}));
  EXPECT_EQ(out(Collective::gather, 0), (Shape{16, 8}));
  EXPECT_EQ(out(Collective::scatter, 1), (Shape{4, 2}));
  EXPECT_EQ(out(Collective::shift, 0), (Shape{4, 8}));
  CollectiveCall call = call_of(Collective::all_to_all, dims);
  EXPECT_EQ(collective_output_dims(call, 4), (Shape{4, 8}));
  call.split_axis = 1;
  EXPECT_EQ(collective_output_dims(call, 4), (Shape{16, 2}));
}

TEST(Call, UnevenNamesDimensionAndRanks) {
  static const std::int64_t dims[] = {4, 6};
  for (const Collective kind : {Collective::reduce_scatter, Collective::scatter, Collective::all_to_all}) {
    CollectiveCall call = call_of(kind, dims);
    call.axis = call.split_axis = 1;
    expect_refused(call, ErrorCode::invalid_argument, "dimension 1 of [4,6] has extent 6, which 4 ranks cannot share evenly");
  }
}

TEST(Call, Refusals) {
  static const std::int64_t dims[] = {4, 4}, negative[] = {4, -1}, huge[] = {std::int64_t{1} << 62, 4};
  for (const CollectiveInfo& row : collectives()) {
    CollectiveCall call = call_of(row.kind, dims);
    EXPECT_NO_THROW(check_call(call, 4));
    if (row.reduces) call.reduction.reset();
    else call.reduction = Reduction::sum;
    expect_refused(call, ErrorCode::invalid_argument, row.reduces ? "needs a reduction" : "takes no reduction");
    call = call_of(row.kind, dims);
    call.dtype = DType::i4;
    expect_refused(call, ErrorCode::unsupported, "does not work on i4");
    call.dtype = DType::boolean;
    if (row.reduces) expect_refused(call, ErrorCode::unsupported, "does not work on bool");
    else EXPECT_NO_THROW(check_call(call, 4));
    call = call_of(row.kind, dims);
    call.root = 4;
    if (row.rooted) expect_refused(call, ErrorCode::invalid_argument, "root 4 is outside a group of 4");
    call = call_of(row.kind, dims);
    call.axis = call.split_axis = 2;
    if (row.extent != CollectiveExtent::same || row.kind == Collective::all_to_all)
      expect_refused(call, ErrorCode::invalid_argument, "axis 2 is outside rank 2");
    call = call_of(row.kind, negative);
    expect_refused(call, ErrorCode::invalid_argument, "negative extent");
    call = call_of(row.kind, huge);
    expect_refused(call, ErrorCode::invalid_argument, "overflows");
    call = call_of(row.kind, dims);
    call.in = nullptr;
    expect_refused(call, ErrorCode::invalid_argument, "memory is missing");
    call.in = call.out;
    if (row.extent != CollectiveExtent::same || row.kind == Collective::all_to_all)
      expect_refused(call, ErrorCode::invalid_argument, "cannot work in place");
  }
}

TEST(Call, OutsideEveryGroup) {
  static const std::int64_t dims[] = {4, 4};
  for (const CollectiveInfo& row : collectives()) {
    memory[0] = 3;
    memory[32] = 0;
    CollectiveCall call = call_of(row.kind, dims);
    if (row.rooted) call.root = 1;  // of the group it is not in
    const bool keeps = row.kind == Collective::all_reduce || row.kind == Collective::reduce || row.kind == Collective::broadcast ||
                       row.kind == Collective::all_to_all;
    if (!keeps) {
      EXPECT_THROW(pass_through(call), Error) << row.name;
      continue;
    }
    pass_through(call);
    EXPECT_EQ(memory[32], 3) << row.name;
  }
  CollectiveCall turned = call_of(Collective::all_to_all, dims);
  turned.concat_axis = 1;
  EXPECT_THROW(pass_through(turned), Error);
}

}  // namespace
}  // namespace tandem
