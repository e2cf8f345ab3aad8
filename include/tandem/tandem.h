// All of Tandem's C++ interface. Public.
#pragma once

#include "tandem/bench.h"
#include "tandem/build.h"
#include "tandem/context.h"
#include "tandem/custom_op.h"
#include "tandem/engine.h"
#include "tandem/error.h"
#include "tandem/gpu.h"
#include "tandem/group.h"
#include "tandem/machine.h"
#include "tandem/network.h"
#include "tandem/ops.h"
#include "tandem/team.h"
#include "tandem/types.h"
