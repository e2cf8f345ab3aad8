"""A program that is one of several ranks: torchrun --nproc_per_node=2 ranks.py, mpirun -n 2 python ranks.py, or srun -n 2 python
ranks.py"""

import tandem

group = tandem.Group.from_env()
engine = tandem.build("tests/models/mlp_dynamo.onnx", mesh={"tp": group.size})
with tandem.Context(engine, rank=group.rank) as context:
    context.set_communicator(group)
    outputs = context(engine.random_inputs(seed=1))  # the same on all ranks, as tp wants it
for name, array in outputs.items():
    print(f"rank {group.rank} of {group.size}: {name} {array.shape}, mean {float(array.mean()):.4f}")
