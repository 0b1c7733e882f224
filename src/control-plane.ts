// The composition root: makes every part, starts them in order, and stops them in reverse. It is never on the path of a
// request; killed, it leaves Envoy and the adapters running, and the next one adopts them (design §1).

import { EventEmitter, once } from 'node:events'
import { rmSync } from 'node:fs'
import { join } from 'node:path'

import { findContainment } from './adapter/containment.ts'
import { allowedPaths } from './allowed.ts'
import { writeApiAddress } from './api/address.ts'
import { createApi } from './api/app.ts'
import { serveApi, type ApiServer } from './api/server.ts'
import { adminToken } from './api/token.ts'
import { AUTH_FILTERS } from './compile/auth.ts'
import { TYPE_OF } from './compile/snapshot.ts'
import { createAuthenticating } from './authenticating.ts'
import { Certificates } from './config/certificates.ts'
import type { Config } from './config/load.ts'
import type { ControlPlane, ControlPlaneOptions } from './control-plane-options.ts'
import { createDeploying } from './deploying.ts'
import { Deployments } from './deployments.ts'
import { Engines } from './docker/engines.ts'
import { createEnvoy, engineSocket, envoyApi } from './envoy-api.ts'
import { configOf, followConfig } from './follow-config.ts'
import { Measuring } from './measuring.ts'
import { callAddress } from './model/address.ts'
import { grantedTo } from './model/client.ts'
import { OperatorError } from './model/operator-error.ts'
import type { Problem } from './model/problem.ts'
import { processTuning } from './model/tuning.ts'
import { whenReady } from './ready.ts'
import { formOf, Patching, remembering } from './patching.ts'
import { createPlanning } from './planning.ts'
import { Reconciler } from './reconcile.ts'
import { createRegistering } from './registering.ts'
import { startRecording } from './recording.ts'
import { createReleasing } from './releasing.ts'
import { restartProblems, telling, withReasons } from './problems.ts'
import { refusalProblem, registrationOf, urlOf } from './rows.ts'
import { ADAPTER_FLAGS, createAdapters, logFile } from './slots/adapters.ts'
import { oldest } from './slots/envoy-binary.ts'
import { ExternalEnvoy, externalEnvoy } from './slots/envoy-external.ts'
import {
  adminSocket as adminSocketOf,
  makeFolders,
  removeSockets,
  xdsSocket as xdsSocketOf,
  type Folders,
} from './slots/folders.ts'
import { tailLines } from './slots/log-tail.ts'
import { watchLogs } from './slots/logs.ts'
import { becomesFree, canBind } from './slots/ports.ts'
import { birthOf, runs } from './slots/process.ts'
import { Slots } from './slots/slots.ts'
import { Trials } from './slots/trial.ts'
import { Tunnels } from './slots/tunnels.ts'
import { openOwnStore } from './store/ownership.ts'
import { createStoredSecrets } from './stored-secrets.ts'
import type { Store } from './store/store.ts'
import { createCodec } from './xds/codec.ts'
import { createView, servedPorts } from './viewing.ts'
import { XdsServer } from './xds/server.ts'

const ADAPTER = [process.execPath, ...ADAPTER_FLAGS, join(import.meta.dirname, 'adapter.cjs')] as const
/** How long an Envoy that has just been ended may still hold the gateway's port. */
const PORT_DEADLINE_MS = 3000
/** How long running requests may take when everything stops. */
const STOP_DEADLINE_MS = 5000

/** @throws {OperatorError} with everything that is wrong and what to do */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  const config = configOf(options.text)
  const folders = makeFolders(options.home)
  const store = openOwnStore(folders.home, { pid: process.pid, birth: birthOf(process.pid)! }, runs)
  try {
    return await start(options, config, folders, store)
  } catch (error) {
    disown(store)
    throw error
  }
}

async function start(
  options: ControlPlaneOptions,
  firstConfig: Config,
  folders: Folders,
  store: Store,
): Promise<ControlPlane> {
  const { home, cache, env, log, progress, version, signal } = options
  const startedAt = Date.now()
  const events = new EventEmitter<{ changed: [] }>()
  const stopped = new AbortController()
  const node = store.nodeId()
  const adminSocket = adminSocketOf(folders)
  const xdsSocket = xdsSocketOf(folders)
  const external = externalEnvoy(env)
  const envoyHost = external?.host
  let config = firstConfig
  const tunnels = new Tunnels({
    records: store,
    folders,
    env,
    changed: () => reconciler.changed(),
    log: (message, fields) => log.info(fields, message),
  })
  const engines = new Engines({
    env,
    home: folders.home,
    sockets: folders.sockets,
    node,
    seen: (state) => reconciler.setEngine(state),
    changed: () => reconciler.changed(),
    log: (message, fields) => log.info(fields, message),
    progress,
    tunnels,
  })

  const secrets = createStoredSecrets({ store, home, env, auth: () => config.auth, reconciler: () => reconciler })
  const authenticating = createAuthenticating({
    store,
    home: folders.home,
    env,
    storedSecret: secrets.value,
    config: () => config,
    reconciler: () => reconciler,
    synced: () => AUTH_FILTERS.every((name) => xds.has(TYPE_OF.extensions, name)),
    log: (message, fields) => log.info(fields, message),
  })
  const { binary, descriptors } = await envoyApi(external !== undefined, {
    env,
    cache,
    engineSocket: engineSocket(config, env, folders),
    progress,
    signal,
  })
  const codec = createCodec(descriptors)
  signal.throwIfAborted()

  const envoy = createEnvoy({
    binary,
    tuning: processTuning(config.tuning),
    folders,
    store,
    xds: () => xds,
    changed: () => {
      // What is sent depends on its release.
      reconciler.changed()
      events.emit('changed')
    },
    log: (message, fields) => log.info(fields, message),
  })
  const adapters = createAdapters({
    command: ADAPTER,
    containment: findContainment(env.PATH),
    records: store,
    folders,
    engine: (name) => engines.address(name),
    cores: (name) => engines.cores(name),
    node,
    tier: (name) => {
      const client = config.clients.find((each) => each.name === name)
      return client && grantedTo(client)
    },
    eras: store,
    env,
    storedSecret: secrets.value,
    log: (message, fields) => log.info(fields, message),
  })
  const certificates = new Certificates(() => reconciler.changed())
  const trials = new Trials(adapters)
  const living = (): ReadonlySet<string> => new Set([...slots.living(), ...trials.living()])
  const deployments = new Deployments({
    store,
    trial: (service, until) => trials.run(service, until),
    paths: allowedPaths(options.file, folders.home),
    changed: () => reconciler.changed(),
    log: (message, fields) => log.info(fields, message),
  })
  const measuring = new Measuring(
    { home: folders.home, node, adminSocket, engines, envoy, log },
    () => ({ reconciler, slots, xds, view }),
    () => events.emit('changed'),
  )
  const slots = new Slots({
    adapters: measuring.following(adapters),
    generations: store,
    routed: (service) => xds.has(TYPE_OF.routes, service),
    beside: (unit) => releasing.beside(unit),
    changed: () => reconciler.changed(),
    log: (message, fields) => log.info(fields, message),
  })
  const encode = remembering((typeUrl, json) => codec.encode(typeUrl, json))
  const patching = new Patching({
    encode,
    form: formOf(version, descriptors),
    store,
    versionOf: (typeUrl, name) => reconciler.snapshot.get(typeUrl)?.get(name)?.version,
    changed: () => reconciler.changed(),
    log: (message, fields) => log.info(fields, message),
  })
  const xds = new XdsServer({
    refused: store.refused(),
    setRefused: (refused) => store.setRefused(refused),
    demand: (cluster) => slots.demand(cluster),
    acknowledged: (...resource) => patching.acknowledged(...resource),
    changed: () => {
      patching.refused(xds.refusals())
      if (envoy instanceof ExternalEnvoy) envoy.streamsChanged()
      events.emit('changed')
    },
    log: (message, fields) => log.info(fields, message),
  })
  const releasing = createReleasing({
    store,
    adminSocket,
    slots: () => slots,
    placed: () => reconciler.placed,
    clients: () => config.clients,
    url: (service, port) => urlOf(service, port, envoyHost ?? callAddress(config.bind), config.tuning),
    trial: (service, until) => trials.run(service, until),
    token: (client) => authenticating.desk.own(client),
    settled: () => reconciler.settled(),
    synced: (service) => xds.has(TYPE_OF.routes, service),
    changed: () => reconciler.changed(),
    log: (message, fields) => log.info(fields, message),
  })
  const recording = startRecording({
    store,
    folders,
    config: () => config,
    placed: () => reconciler.placed,
    changed: () => events.emit('changed'),
    log: (message, fields) => log.info(fields, message),
  })
  const problems = (): Problem[] => [
    ...engines.problems(),
    ...restartProblems(firstConfig, config),
    ...certificates.problems(),
    ...withReasons(reconciler.problems(), tunnels.problems()),
    ...deployments.problems(),
    ...releasing.problems(),
    ...secrets.problems(),
    ...authenticating.problems(),
    ...recording.problems(),
    ...envoy.problems(),
    ...xds.refusals().flatMap((refusal) => (patching.explains(refusal) ? [] : refusalProblem(refusal))),
    ...patching.problems(),
    ...registering.problems(),
    ...measuring.problems(),
  ]
  const tell = telling(problems, options.problem)

  const reconciler = new Reconciler({
    slots,
    store,
    encode,
    patching,
    publish: (snapshot, changes) => {
      xds.publish(snapshot, changes)
      log.info({ changes: [...changes.values()].reduce((sum, names) => sum + [...names].length, 0) }, 'published')
    },
    // In an Envoy elsewhere nobody can try; Envoy itself says when a port is taken.
    canBind: async (port) => external !== undefined || canBind(config.bind, port),
    image: (...asked) => engines.image(...asked),
    withRevisions: secrets.withRevisions,
    certificates,
    auth: authenticating.auth,
    node,
    hosts: envoyHost === undefined ? [] : [envoyHost],
    requestLog: (wanted) => recording.file(wanted),
    living,
    envoyVersion: () => oldest(envoy.versions),
    deployments,
    releases: { versions: (service) => releasing.versions(service), peek: (service) => releasing.peek(service) },
    reap: (name) => void engines.reap(name, living),
    reconciled: () => {
      registering.sync()
      releasing.reconciled()
      events.emit('changed')
    },
    log: (message, fields) => log.info(fields, message),
    now: Date.now,
  })
  events.on('changed', tell)

  const firstRun = once(events, 'changed', { signal })
  // It is awaited later; what ends the start until then ends it in order.
  firstRun.catch(() => undefined)
  const registering = createRegistering({
    node,
    version,
    // The check follows Envoy's own answer (compile/route.ts), `healthy` is where it starts.
    registrations: () =>
      reconciler.placed.flatMap(({ service, port }) =>
        port === undefined ? [] : [registrationOf(service, port, { ...config, envoyHost }, slots.views())],
      ),
    changed: () => events.emit('changed'),
    log: (message, fields) => log.info(fields, message),
  })
  const applyConfig = (next: Config): void => {
    registering.configure(next.consul)
    config = next
    measuring.configure(config)
    engines.configure(config.engines)
    authenticating.configure(config.auth)
    reconciler.setConfig(config, engines.runtimes())
    engines.watch()
  }

  /** @param keep leave Envoy and the adapters running */
  const close = async (keep: boolean): Promise<void> => {
    if (stopped.signal.aborted) return
    stopped.abort()
    events.off('changed', tell)
    reconciler.close()
    certificates.close()
    authenticating.close()
    deployments.close()
    releasing.close()
    engines.close()
    stopLogs()
    rmSync(join(folders.home, 'api.json'), { force: true })
    await Promise.all([api?.close(), measuring.close()])
    // First of all, so that nobody new is sent here.
    await registering.close(!keep)
    await Promise.all([trials.stop(), adapters.endSpares()])
    if (keep) {
      slots.release()
      tunnels.release()
      envoy.release()
    } else {
      await envoy.drain()
      await slots.stop(STOP_DEADLINE_MS)
      await engines.clear()
      await tunnels.close()
      await envoy.stop()
    }
    xds.close()
    await recording.close(!keep)
    if (!keep) removeSockets(folders, external !== undefined)
  }

  const isReady = (): boolean => envoy.state === 'running' && xds.synced(SERVED_TYPES)
  const view = createView({
    startedAt,
    version,
    binary: binary?.version,
    isReady,
    measuring,
    envoy,
    xds,
    reconciler,
    slots,
    config: () => config,
    certificates,
    deployments,
    releasing,
    problems,
    dind: async () => engines.dind(),
  })
  const stopLogs = watchLogs(folders.logs, (reason) => log.warn({ reason }, 'the log files cannot be kept small'))
  const running = store.processes().length > 0
  let api: ApiServer | undefined
  try {
    slots.adopt(store.processes())
    tunnels.adopt(store.processes())
    const held = await envoy.adopt()
    reconciler.envoyHolds(held ?? new Set())
    if (
      !external &&
      !held?.has(config.ports.gateway) &&
      !(await becomesFree(config.bind, config.ports.gateway, PORT_DEADLINE_MS))
    )
      throw new OperatorError(
        `Port ${config.ports.gateway} of the gateway is taken by another process ` +
          `(\`ss -ltnp 'sport = :${config.ports.gateway}'\` names it). End it, or set ports.gateway to another port.`,
      )
    api = await serveApi(
      createApi({
        view,
        actions: {
          restart: (service) => slots.restart(service),
          restartEnvoy: (cut) => envoy.restart(cut),
          logs: (service, lines) => tailLines(logFile(folders, service), lines),
        },
        deploying: createDeploying({
          deployments,
          config: () => config,
          placed: () => reconciler.placed,
          rows: () => view.services(),
          folder: options.text.folder,
          settled: () => reconciler.settled(),
        }),
        planning: createPlanning({
          reconciler,
          patching,
          first: firstConfig,
          config: () => config,
          folder: options.text.folder,
          adminSocket,
        }),
        releasing,
        secrets: secrets.api,
        tokens: authenticating.desk,
        recorded: recording,
        token: await adminToken(folders.home),
        envoyHost,
        onBug: (error) => log.error({ err: error }, 'the control API failed'),
      }),
      { host: config.bind, port: config.ports.api },
    )
    await authenticating.start(config.auth)
    applyConfig(config)
    await firstRun
    await xds.listen(xdsSocket)
    if (!held) await envoy.start()
    adapters.keepSpares()
    writeApiAddress(folders.home, { url: api.url, pid: process.pid, admin: adminSocket, envoy: envoyHost })
    if (options.file) void followConfig(options.file, applyConfig, reconciler, stopped.signal)
    const host = envoyHost ?? callAddress(config.bind)
    const ready = whenReady(
      { isReady, ports: () => servedPorts({ reconciler, xds, certificates }), host, events, tell: progress },
      stopped.signal,
    )
    ready.catch(() => undefined)
    return {
      view,
      ready,
      stop: async () => {
        await close(false)
        disown(store)
      },
    }
  } catch (error) {
    // What ran before this start goes on when only this control plane failed; not when it is told to stop.
    await close(running && !signal.aborted)
    throw error
  }
}

const SERVED_TYPES = [TYPE_OF.listeners, TYPE_OF.scopedRoutes, TYPE_OF.routes]

function disown(store: Store): void {
  store.dropOwnership(process.pid)
  store.close()
}
