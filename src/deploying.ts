// What the control API's deployments do: a request becomes a manifest, the manifest deployments, and the answer comes when
// Envoy's resources are made of them.

import type { DeployedRow, Deploying, DeployRequest, Refusal } from './api/deploy.ts'
import type { ServiceRow } from './api/view.ts'
import { findEntry } from './catalog/lookup.ts'
import { manifestOfEntry, manifestOfImage } from './catalog/manifest.ts'
import type { Config, ConfigText } from './config/load.ts'
import { manifestOf } from './config/manifest.ts'
import type { Deployments } from './deployments.ts'
import type { Problem } from './model/problem.ts'
import type { Placed } from './served-world.ts'

export interface DeployingOptions {
  readonly deployments: Deployments
  readonly config: () => Config
  readonly placed: () => readonly Placed[]
  readonly rows: () => readonly ServiceRow[]
  /** Where relative paths of a manifest start that says nothing. */
  readonly folder: string
  /** Resolves when everything that is known is published. */
  readonly settled: () => Promise<void>
}

export function createDeploying(options: DeployingOptions): Deploying {
  const { deployments, config, placed, rows, settled } = options

  const deploy = async (text: ConfigText): Promise<readonly DeployedRow[] | Refusal> => {
    const outcome = deployments.deploy(text, { config: config(), served: placed() })
    if ('problems' in outcome) return { status: outcome.conflict ? 409 : 400, problems: outcome.problems }
    await settled()
    const all = rows()
    return outcome.deployed.flatMap(({ service, change }) => {
      const row = all.find(({ name }) => name === service)
      // Otherwise it was removed meanwhile.
      return row ? [{ change, service: row }] : []
    })
  }
  const one = async (service: string, definition: unknown, folder: string): Promise<DeployedRow | Refusal> => {
    const written = textOfJson(definition)
    if (written === undefined) {
      const remedy = 'A definition has two levels, or three.'
      return { status: 400, problems: [problemOf(service, 'The values are nested too deeply.', remedy)] }
    }
    const outcome = await deploy({ text: manifestOf(service, written), file: 'definition', folder })
    if ('problems' in outcome) return outcome
    return outcome[0] ?? missing(service, rows())
  }

  return {
    deploy: (request) => {
      const text = textOf(request)
      if ('status' in text) return Promise.resolve(text)
      return deploy({ text: text.text, file: request.file ?? 'manifest', folder: request.folder ?? options.folder })
    },
    put: (service, definition) => one(service, definition, options.folder),
    async remove(service) {
      if (!deployments.remove(service)) return notDeployed(service, rows())
      await settled()
      return { removed: service }
    },
    async scale(service, wanted) {
      const found = deployments.definition(service)
      if (!found) return notDeployed(service, rows())
      const { scale, ...rest } = found.value
      return one(service, { ...rest, scale: { ...Object(scale), ...wanted } }, found.folder)
    },
  }
}

/** Undefined: it is nested more deeply than can be written; reading knows no such bound. */
function textOfJson(value: unknown): string | undefined {
  try {
    return JSON.stringify(value)
  } catch (error) {
    if (error instanceof RangeError) return undefined
    throw error
  }
}

function textOf({ manifest, image, catalog, name }: DeployRequest): { text: string } | Refusal {
  if (manifest !== undefined) return { text: manifest }
  if (image !== undefined) return { text: manifestOfImage(image, name) }
  const found = findEntry(catalog ?? '')
  if (found.entry) return { text: manifestOfEntry(found.entry, name) }
  const near = found.nearest === undefined ? '' : ` Did you mean ${found.nearest}?`
  const message = `The catalog has no ${catalog}.${near}`
  const problem = { about: 'catalog', where: 'catalog', message, remedy: 'berth catalog lists what it has.' }
  return { status: 404, problems: [problem] }
}

function missing(service: string, rows: readonly ServiceRow[]): Refusal {
  const names = rows.map(({ name }) => name).join(', ') || 'none'
  const remedy = `There are: ${names}.`
  return { status: 404, problems: [problemOf(service, `There is no service ${service}.`, remedy)] }
}

function notDeployed(service: string, rows: readonly ServiceRow[]): Refusal {
  const row = rows.find(({ name }) => name === service)
  if (!row) return missing(service, rows)
  const [message, remedy] =
    row.source === 'config'
      ? [`Service ${service} is written in the configuration.`, 'Change it there; it is applied without a restart.']
      : [`Service ${service} is a container that was found running.`, 'Change or remove the container itself.']
  return { status: 409, problems: [problemOf(service, message, remedy)] }
}

function problemOf(service: string, message: string, remedy: string): Problem {
  return { about: `service ${service}`, where: 'control API', message, remedy }
}
