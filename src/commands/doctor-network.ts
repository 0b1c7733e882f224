// The checks of `berth doctor` on what Berth talks to: ports, Docker engines, the control plane that runs.

import { createServer } from 'node:net'

import type { ServiceRow, Status } from '../api/view.ts'
import type { Config } from '../config/load.ts'
import { carrierOf, engineAddresses } from '../docker/addresses.ts'
import { withEngine } from '../docker/client.ts'
import { type EngineAddress, engineProblem, isTunnelled } from '../docker/engine.ts'
import { withoutHost } from '../docker/engines.ts'
import { sshAddress, sshCommand, type TunnelledEngine } from '../model/engine.ts'
import { OperatorError } from '../model/operator-error.ts'
import type { Problem } from '../model/problem.ts'
import { foldersOf } from '../slots/folders.ts'
import type { CommandContext } from './command.ts'
import type { Finding } from './doctor-finding.ts'
import { running } from './running.ts'

const ENGINE_TIMEOUT_MS = 3000
/** Of the quickstart configuration. */
const QUICKSTART_SERVICES = 3

/** One finding for each of the gateway, the control API and the metrics, one for the ports of the services. */
export async function ports(context: CommandContext, { ports, services, bind }: Config): Promise<Finding[]> {
  const ours = await ownPorts(context)
  const usable = async (port: number) => ours.has(port) || (await isFree(bind, port))
  const mend = (setting: string) => `Stop the program that holds it (ss -ltnp), or set ${setting} in the configuration.`

  const findings: Finding[] = []
  const fixed: [string, number][] = [
    ['ports.gateway', ports.gateway],
    ['ports.api', ports.api],
    ['ports.metrics', ports.metrics],
    ...services.flatMap(({ name, port }): [string, number][] =>
      port === undefined ? [] : [[`services.${name}.port`, port]],
    ),
  ]
  for (const [setting, port] of fixed) {
    if (await usable(port)) continue
    findings.push({ check: 'port', state: 'failure', message: `${port} (${setting}) is taken.`, mend: mend(setting) })
  }

  const { from, to } = ports.services
  const written = new Set(services.map(({ port }) => port))
  const wanted = context.config ? services.filter(({ port }) => port === undefined).length : QUICKSTART_SERVICES
  let free = 0
  for (let port = from; port <= to && free < wanted; port++) if (!written.has(port) && (await usable(port))) free++
  if (free < wanted) {
    const message = `${free} of the ${wanted} that services need are free between ${from} and ${to}.`
    findings.push({ check: 'port', state: 'failure', message, mend: mend('ports.services') })
  }
  if (findings.length > 0) return findings
  const held = ours.size > 0 ? ' or held by this Berth' : ''
  return [{ check: 'ports', state: 'ok', message: `those of the configuration are free${held}.` }]
}

/** The ports that the control plane of this state folder and its Envoy listen on. */
async function ownPorts(context: CommandContext): Promise<ReadonlySet<number>> {
  try {
    const { address, get } = await running(context)
    const services = await get<readonly ServiceRow[]>('services')
    const { metrics } = await get<Status>('status')
    const urls = [address.url, metrics, ...services.flatMap(({ url, gateway_url }) => [url, gateway_url])]
    return new Set(urls.flatMap((url) => (url === null ? [] : [Number(new URL(url).port)])))
  } catch (error) {
    if (error instanceof OperatorError) return new Set()
    throw error
  }
}

function isFree(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, host, () => server.close(() => resolve(true)))
  })
}

/** One finding for each engine; without any, services run as local processes. */
export async function engines(context: CommandContext, { engines: written }: Config): Promise<Finding[]> {
  const check = 'Docker'
  const { env, home } = context
  const folders = foldersOf(home)
  const { addresses, problems } = engineAddresses(written, env, folders)
  const own = written === 'auto' ? undefined : written.find(({ managed }) => managed)
  const runs = await isRunning(context)
  // These are there only while Berth runs.
  const later = (address: EngineAddress): boolean => !runs && (address.name === own?.name || isTunnelled(address))
  const findings = [
    ...problems.map((problem): Finding => ({ check, state: 'failure', ...words(problem) })),
    ...(await Promise.all(addresses.filter((address) => !later(address)).map((address) => engine(check, address)))),
    ...addresses.filter(later).flatMap((address) => (isTunnelled(address) ? [behindSsh(check, address)] : [])),
  ]
  if (own && !runs) {
    const carrier = carrierOf(written, env, folders)
    const isLooked = addresses.some(({ name }) => name === carrier?.name)
    if (carrier && !isLooked) findings.push(await engine(check, carrier))
    findings.push(managed(check, own.name, carrier))
  }
  if (findings.length > 0) return findings
  return [{ check, state: 'ok', message: 'no engine here; services run as local processes.' }]
}

function managed(check: string, name: string, carrier: EngineAddress | undefined): Finding {
  if (carrier)
    return { check, state: 'ok', message: `engine ${name} is brought up by berth up, inside ${carrier.name}.` }
  const { message, remedy } = withoutHost(name)
  return { check, state: 'failure', message: `engine ${name}: ${message}`, mend: remedy }
}

function behindSsh(check: string, { name, ssh }: TunnelledEngine): Finding {
  const message = `engine ${name}: berth up makes the connection to ${sshAddress(ssh)}.`
  return { check, state: 'warning', message, mend: `Try it by hand: ${sshCommand(ssh, 'docker version')}.` }
}

/** Whether the control plane answers: one that was killed leaves its address behind. */
async function isRunning(context: CommandContext): Promise<boolean> {
  try {
    await (await running(context)).get('status')
    return true
  } catch (error) {
    if (error instanceof OperatorError) return false
    throw error
  }
}

async function engine(check: string, address: EngineAddress): Promise<Finding> {
  const filters = { label: ['berth.service'] }
  try {
    await withEngine(address, (client) => client.list(filters, AbortSignal.timeout(ENGINE_TIMEOUT_MS)))
    return { check, state: 'ok', message: `engine ${address.name} answers.` }
  } catch (error) {
    return { check, state: 'failure', ...words(engineProblem(address, error)) }
  }
}

function words({ where, message, remedy }: Problem): Pick<Finding, 'message' | 'mend'> {
  return { message: `${where}: ${message}`, mend: remedy }
}

export async function runningControlPlane(context: CommandContext): Promise<Finding> {
  const check = 'control plane'
  try {
    const { get } = await running(context)
    const { pid, ready } = await get<Status>('status')
    if (ready) return { check, state: 'ok', message: `runs, pid ${pid}, ready.` }
    return { check, state: 'warning', message: `runs, pid ${pid}, not ready.`, mend: 'berth problems shows why.' }
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error
    const [message = '', ...mend] = error.message.split('\n')
    return { check, state: 'warning', message, ...(mend.length > 0 && { mend: mend.join('\n') }) }
  }
}
