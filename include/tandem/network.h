// Networks built in code: the same programs that importers make of model files. Public.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tandem/build.h"
#include "tandem/ops.h"

namespace tandem {

class Value;
struct NetworkState;

// How a collective runs. Which ranks: those of a mesh axis, or explicit groups, or all.
struct CollectiveOptions {
  std::string reduce;      // "sum", "prod", "max", "min", "avg"; empty: sum where the operation reduces
  std::int64_t root = -1;  // position in the group, for operations that have one
  std::int64_t dim = 0;    // dimension that is joined or cut; all_to_all cuts and joins along it
  std::string axis;        // of the network's mesh
  RankGroups groups;
  std::int64_t num_ranks = 0;  // in a group; 0: as axis, groups or mesh say
  std::int64_t shift = 1;
};

struct AttentionOptions;

struct OnnxOptions {
  int ranks = 1;            // that will run a file which another tool has sharded without saying for how many
  bool refittable = false;  // compute nothing with the contents of weights, so that a refit reaches all of them
  std::string folder;       // external data of a model in memory lies in it
};

// A program in the making. What is added is checked at once; an error names op, what is wrong, what was expected and what was found,
// and leaves the network as it was. Copies share the network; one thread at a time.
//
// Two kinds. Without a mesh and without nodes that communicate it is the program as one device would run it: build() shards it as it
// shards a model file. With a mesh, or with collectives, it is the program of *one rank*, the same on all: build() takes it as it is.
// There inputs and outputs are each rank's own unless placed otherwise: "same" on all ranks, or "DIM:AXIS[,DIM:AXIS…]", split over mesh
// axes in blocks of ⌈extent/N⌉ as the caller scatters and gathers them.
class Network {
 public:
  // A typed result, input or weight of a network. Cheap to copy; keeps the network alive. A default one stands for an absent operand.
  class Value {
   public:
    Value() = default;
    const std::string& name() const;
    DType dtype() const;
    Extents shape() const;  // what one rank holds
    int rank() const;
    std::string op() const;  // that gives it; empty for inputs and weights
    Network network() const { return Network(state_); }
    explicit operator bool() const { return value_ != nullptr; }
    bool operator==(const Value& other) const { return value_ == other.value_; }

   private:
    friend class Network;
    Value(std::shared_ptr<NetworkState> state, tandem::Value* value) : state_(std::move(state)), value_(value) {}
    std::shared_ptr<NetworkState> state_;
    tandem::Value* value_ = nullptr;
  };

  // `mesh` as in "tp=2,cp=2"; empty: none.
  explicit Network(const std::string& mesh = {});
  // Begins with the program of an ONNX file, its outputs included, to be built as it is or added to. Throws as build() of the file.
  static Network from_onnx(const std::string& path, const OnnxOptions& options = {});
  // The same from the bytes of such a file.
  static Network from_onnx(const Array& bytes, const OnnxOptions& options = {});
  std::string mesh() const;
  // An independent network of what was added so far; it shares the memory of the weights. Values stay with this one.
  Network copy() const;

  // The range of a symbol. Symbols nobody gives a range get min 1, opt 8, max 65536 at build, less where a constraint says so.
  void symbol(const std::string& name, std::int64_t min, std::int64_t opt, std::int64_t max);

  // `shape` is the caller's; where it is placed over mesh axes the value is one rank's block.
  Value input(const std::string& name, DType dtype, const Extents& shape, const std::string& placement = {});
  // A tensor under a name by which a refit finds it; placed over mesh axes, each rank has its block (the last ones may end in zeros).
  // The memory is shared: it must not change while the network or an engine made from it lives. Memory that is not aligned to its
  // element is copied.
  Value weight(const std::string& name, const Array& data, const std::string& placement = {});
  // Values of the program itself, which no refit reaches. Up to 1024 elements are copied; more are shared like a weight's.
  Value constant(const Array& data);
  Value scalar(DType dtype, double value);

  // Adds an op of the list by its name ("LayerNorm"). The op's own rules check it. Beyond the op's attributes: one extent of a Reshape
  // may be -1, and num_ranks of what communicates follows from axis, groups or the network's mesh. `name` is for messages.
  std::vector<Value> add_all(const std::string& op, const std::vector<Value>& operands, const OpAttributes& attributes = {},
                             const std::string& name = {});
  // The same for an op of one result.
  Value add(const std::string& op, const std::vector<Value>& operands, const OpAttributes& attributes = {}, const std::string& name = {});
  // Changes an attribute of the node that made `value`; what follows from it gets its new shapes, or nothing changes.
  void set_attribute(const Value& value, const std::string& attribute, const OpAttribute& to);
  OpAttribute attribute(const Value& value, const std::string& attribute) const;

  // `operation` is NCCL's word: all_reduce, all_gather, broadcast, reduce, reduce_scatter, all_to_all, gather, scatter; or shift.
  Value dist_collective(const Value& x, const std::string& operation, const CollectiveOptions& options = {}, const std::string& name = {});
  Value attention(const Value& q, const Value& k, const Value& v, const AttentionOptions& options, const std::string& name = {});
  Value attention(const Value& q, const Value& k, const Value& v);

  // `placement` as for inputs; a block's extent times the ranks is what the caller sees.
  void output(const std::string& name, const Value& value, const std::string& placement = {});
  // Its value stays. Throws Error(invalid_argument) if there is no output of this name.
  void remove_output(const std::string& name);

  std::vector<Value> inputs() const;
  std::vector<std::pair<std::string, Value>> outputs() const;
  // The program in the words of docs/graph_text.md; weights of more than 64 elements without their data.
  std::string to_text() const;
  // The same as JSON: mesh, "inputs", "outputs", "values" with extents and how they lie over the mesh, "nodes" with operands, results and
  // attributes that are not what they are by default. Extents are those of one rank; what a node gives has no sharding before build().
  std::string describe() const;

  const NetworkState& state() const { return *state_; }

 private:
  explicit Network(std::shared_ptr<NetworkState> state) : state_(std::move(state)) {}
  std::vector<tandem::Value*> own(const std::vector<Value>& values, const std::string& op) const;
  std::shared_ptr<NetworkState> state_;
};

// The attributes of Attention with their meaning in docs/ops.md.
struct AttentionOptions {
  Network::Value mask, query_lengths, key_lengths, past;
  std::optional<double> scale;  // none: 1/√D
  std::string causal = "none";
  double softcap = 0;
  std::string axis;
  RankGroups groups;
  std::int64_t num_ranks = 0;  // 0: as axis or groups say, else 1
  std::string split = "qkv", layout = "contiguous", algorithm = "auto";
  Extent extent = 0, kv_extent = 0;
};

// After numpy's broadcasting; the dtypes must be equal.
Network::Value operator+(const Network::Value& a, const Network::Value& b);
Network::Value operator-(const Network::Value& a, const Network::Value& b);
Network::Value operator*(const Network::Value& a, const Network::Value& b);
Network::Value operator/(const Network::Value& a, const Network::Value& b);
Network::Value operator-(const Network::Value& x);

// The same path as a model file's: passes, sharding, plan, engine. The network stays as it is and may be built again, for another mesh
// too. A network of one rank's program takes the ranks from its mesh, from `options`, or from a collective over all ranks.
Engine build(const Network& network, const BuildOptions& options = {});

}  // namespace tandem
