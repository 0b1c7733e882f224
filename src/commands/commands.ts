// The table of commands, in the order in which `berth help` lists them.

import * as call from './call.ts'
import * as catalog from './catalog.ts'
import * as clients from './clients.ts'
import type { Command } from './command.ts'
import * as deploy from './deploy.ts'
import * as dind from './dind.ts'
import * as doctor from './doctor.ts'
import * as down from './down.ts'
import * as envoy from './envoy.ts'
import { help } from './help.ts'
import * as image from './image.ts'
import * as logs from './logs.ts'
import * as ls from './ls.ts'
import * as plan from './plan.ts'
import * as problems from './problems.ts'
import * as release from './release.ts'
import * as restart from './restart.ts'
import * as rm from './rm.ts'
import * as scale from './scale.ts'
import * as secret from './secret.ts'
import * as sessions from './sessions.ts'
import * as status from './status.ts'
import * as token from './token.ts'
import * as up from './up.ts'

const commands: readonly Command[] = [
  up,
  down,
  ls,
  status,
  call,
  deploy,
  rm,
  scale,
  release,
  restart,
  logs,
  clients,
  sessions,
  problems,
  plan,
  envoy,
  token,
  secret,
  catalog,
  image,
  dind,
  doctor,
]

export const COMMANDS: readonly Command[] = [...commands, help(commands)]
