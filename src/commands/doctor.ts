// `berth doctor`: what Berth needs of this machine, whether it is there, and what to do where it is not.

import { join } from 'node:path'

import { readConfigFile } from '../config/file.ts'
import { type Config, loadConfig } from '../config/load.ts'
import { problemLine } from '../model/problem.ts'
import type { CommandContext } from './command.ts'
import type { Finding } from './doctor-finding.ts'
import { containment, envoy, node, pip, stateFolder } from './doctor-machine.ts'
import { engines, ports, runningControlPlane } from './doctor-network.ts'

export const name = 'doctor'
export const summary = 'Check what Berth needs of this machine, and say what to do.'
export const usage = ''
export const options = {}

const MARKS = { ok: '✓', warning: '!', failure: '✗' } as const

export async function run(context: CommandContext): Promise<number> {
  const { config, finding } = await configuration(context)
  const findings = [
    node(process.versions.node),
    await envoy(context),
    await pip(context),
    await containment(context),
    await stateFolder(context),
    finding,
    ...(await engines(context, config)),
    ...(await ports(context, config)),
    await runningControlPlane(context),
  ]
  context.print(context.json ? JSON.stringify(findings, null, 2) : findings.map(line).join('\n'))
  return findings.some(({ state }) => state === 'failure') ? 1 : 0
}

function line({ state, check, message, mend }: Finding): string {
  return `${MARKS[state]} ${check}: ${message}${mend === undefined ? '' : `\n    ${mend.replaceAll('\n', '\n    ')}`}`
}

/** The configuration that the other checks go by: that of the file, or one without services. */
async function configuration({ config: file, home }: CommandContext): Promise<{ config: Config; finding: Finding }> {
  const check = 'configuration'
  const folder = file?.folder ?? join(home, '..')
  const none = loadConfig({ text: '', file: 'none', folder })
  if ('problems' in none) throw new Error('An empty configuration is not valid.')
  if (!file) {
    const message = 'there is no berth.yaml; berth up starts the quickstart configuration.'
    return { config: none.config, finding: { check, state: 'ok', message } }
  }
  const read = await readConfigFile(file)
  const loaded =
    'text' in read ? loadConfig({ text: read.text, file: file.name, folder }) : { problems: [read.problem] }
  if ('config' in loaded) {
    const message = `${file.name} is valid, ${loaded.config.services.length} services.`
    return { config: loaded.config, finding: { check, state: 'ok', message } }
  }
  const message = `${file.name} has ${loaded.problems.length === 1 ? 'a mistake' : `${loaded.problems.length} mistakes`}:`
  const mend = loaded.problems.map(problemLine).join('\n')
  return { config: none.config, finding: { check, state: 'failure', message, mend } }
}
