// `berth ls`: the services and where they are.

import type { ServiceRow } from '../api/view.ts'
import type { CommandContext } from './command.ts'
import { running } from './running.ts'
import { table } from './table.ts'

export const name = 'ls'
export const summary = 'List the services with their addresses and states.'
export const usage = ''
export const options = {}

export async function run(context: CommandContext): Promise<number> {
  const services = await (await running(context)).get<readonly ServiceRow[]>('services')
  if (context.json) context.print(JSON.stringify(services, null, 2))
  else context.print(services.length === 0 ? empty(context) : list(services))
  return 0
}

function empty({ config }: CommandContext): string {
  return (
    `No services yet. Add one below services in ${config?.name ?? 'berth.yaml'}, ` +
    'or start a container with the label berth.service and its stdin open (docker run -i).'
  )
}

type Release = NonNullable<ServiceRow['release']>

const RELEASES: Readonly<Record<Release['state'], string>> = {
  canary: 'a canary runs beside it',
  mirror: 'another version reads along',
  promoted: 'its canary was promoted',
  'rolled-back': 'its canary was rolled back',
}

function released({ state, versions }: Release): string {
  const sides = versions.map(({ role, weight, requests, errors, reason }) => {
    const part = weight === undefined ? role : `${role} (${weight} %)`
    return reason === undefined ? `${part} ${requests} requests, ${errors} errors` : `${part} does not serve: ${reason}`
  })
  return `${RELEASES[state]}: ${sides.join('; ')}`
}

function list(services: readonly ServiceRow[]): string {
  const rows = services.map((service) => [
    service.name,
    service.why === undefined ? service.state : `${service.state} (${service.why})`,
    service.health,
    service.isolation,
    service.runtime,
    String(service.slots.reduce((sum, slot) => sum + slot.sessions, 0)),
    service.url ?? service.gateway_url ?? '-',
  ])
  const reasons = services.flatMap(({ name, runtime, reason, note, release }) => [
    ...(reason === undefined ? [] : [`${name}: ${reason}`]),
    ...(note === undefined ? [] : [`${name} runs as a ${runtime}: ${note}`]),
    ...(release === undefined ? [] : [`${name}: ${released(release)}`]),
  ])
  const head = ['NAME', 'STATE', 'HEALTH', 'ISOLATION', 'RUNTIME', 'SESSIONS', 'URL']
  return [table([head, ...rows]), ...(reasons.length > 0 ? ['', ...reasons] : [])].join('\n')
}
