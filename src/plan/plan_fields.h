// The fields of a plan's parts under their names in JSON: one list per struct, which the writer and the reader share.
// A visitor has required(name, field) and optional(name, field, default).
#pragma once

#include <concepts>
#include <type_traits>

#include "plan/plan.h"

namespace tandem {

template <typename T, typename U>
concept Is = std::same_as<std::remove_const_t<T>, U>;

template <typename V, Is<PlanValue> T>
void visit_fields(V& v, T& x) {
  v.required("name", x.name);
  v.required("kind", x.kind);
  v.required("type", x.type);
  v.optional("weight", x.weight, -1);
  v.optional("alias_of", x.alias_of, -1);
  v.optional("first_step", x.first_step, -1);
  v.optional("last_step", x.last_step, -1);
  v.optional("sharding", x.sharding, Sharding());
}

template <typename V, Is<Candidate> T>
void visit_fields(V& v, T& x) {
  v.required("kernel", x.kernel);
  v.optional("microseconds", x.microseconds, 0.0);
  v.optional("reason", x.reason, std::string());
}

// The attributes follow separately: reading them takes the op.
template <typename V, Is<Step> T>
void visit_fields(V& v, T& x) {
  v.required("kernel", x.kernel);
  v.required("op", x.op);
  v.optional("node", x.node, std::string());
  v.required("operands", x.operands);
  v.required("results", x.results);
  v.optional("note", x.note, std::string());
  v.optional("microseconds", x.microseconds, 0.0);
  v.optional("communicates", x.communicates, false);
  v.optional("candidates", x.candidates, std::vector<Candidate>());
  v.optional("algorithm", x.algorithm, std::string());
  v.optional("starts_early", x.starts_early, false);
  v.optional("resident", x.resident, std::vector<int>());
}

template <typename V, Is<Binding> T>
void visit_fields(V& v, T& x) {
  v.required("name", x.name);
  v.required("value", x.value);
  v.required("type", x.type);
  v.optional("sharding", x.sharding, Sharding());
}

template <typename V, Is<Constraint> T>
void visit_fields(V& v, T& x) {
  v.required("left", x.left);
  v.required("right", x.right);
  v.optional("where", x.where, std::string());
}

template <typename V, Is<Program> T>
void visit_fields(V& v, T& x) {
  v.required("name", x.name);
  v.required("inputs", x.inputs);
  v.required("outputs", x.outputs);
  v.required("values", x.values);
  v.required("steps", x.steps);
  v.required("profiles", x.profiles);
  v.required("constraints", x.constraints);
}

template <typename V, Is<PlanWeight> T>
void visit_fields(V& v, T& x) {
  v.required("name", x.name);
  v.required("dtype", x.dtype);
  v.required("shape", x.shape);
  v.required("recipe", x.recipe);
  v.optional("axes", x.axes, std::vector<std::string>());
  v.optional("frozen", x.frozen, false);
}

template <typename V, Is<CollectiveUse> T>
void visit_fields(V& v, T& x) {
  v.required("program", x.program);
  v.required("step", x.step);
  v.required("operation", x.operation);
  v.optional("reduce", x.reduce, std::string());
  v.required("dtype", x.dtype);
  v.required("count", x.count);
  v.optional("axis", x.axis, std::string());
  v.optional("groups", x.groups, RankLists());
  v.optional("root", x.root, -1);
  v.required("bytes", x.bytes);
}

template <typename V, Is<StoredCode> T>
void visit_fields(V& v, T& x) {
  v.required("text", x.text);
  v.required("sm", x.sm);
  v.required("digest", x.digest);
  v.required("size", x.size);
}

template <typename V, Is<Plan> T>
void visit_fields(V& v, T& x) {
  v.required("format", x.format);
  v.required("tool", x.tool);
  v.required("device", x.device);
  v.required("features", x.features);
  v.required("mesh", x.mesh);
  v.required("strategy", x.strategy);
  v.required("refittable", x.refittable);
  v.optional("exact", x.exact, false);
  v.optional("tf32", x.tf32, false);
  v.required("programs", x.programs);
  v.required("weights", x.weights);
  v.required("collectives", x.collectives);
  v.required("notices", x.notices);
  v.required("built_with", x.built_with);
  v.optional("code", x.code, std::vector<StoredCode>());
}

}  // namespace tandem
