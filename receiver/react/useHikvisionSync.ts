import { useEffect, useRef, useState } from 'react'

type Status = 'success' | 'partial' | 'skipped' | 'fatal'
type Kind = 'session' | 'forbidden' | 'too_often' | 'refused' | 'unavailable' | 'unreachable'
interface OnDevice { device_id: string; status: Status; step: string; message: string }
export type Result = OnDevice & { angajat_id: string; name: string }
export type Summary = Record<Status, number> & { first_fatal: string | null }
export interface Problem { kind: Kind; detail: string; retryAfterS?: number; runId?: string }
type Line =
  | { type: 'start'; run_id: string; total: number }
  | ({ type: 'result' | 'amended'; done: number } & Result)
  | { type: 'end'; summary: Summary; stopped_because: string | null }
  | { type: 'ping' }
interface ByEmployee { angajat_id: string; name: string; per_device: OnDevice[] }
interface Ended { stopped_because: string | null; results?: ByEmployee[] }
interface Run { done: number; total: number; summary: Summary; result?: Ended }
interface Options { baseUrl: string; getAccessToken: () => Promise<string | null> | string | null }

const [SHOW_MS, POLL_MS, MAX_FAILED_POLLS, SILENCE_MS, RESULTS_KEPT] = [100, 1000, 10, 30_000, 50]
const KINDS: Record<number, Kind> = { 401: 'session', 403: 'forbidden', 429: 'too_often' }
const IDLE = {
  state: 'idle' as 'idle' | 'running' | 'done' | 'error',
  runId: null as string | null,
  following: false, // a run that was going on already
  stopping: false,
  done: 0, // pairs of employee and terminal, of `total`, which is 0 until it is known
  total: 0,
  summary: { success: 0, partial: 0, skipped: 0, fatal: 0, first_fatal: null } as Summary,
  stoppedBecause: null as string | null, // why it ended before `total`
  results: [] as Result[], // the last RESULTS_KEPT
  problem: null as Problem | null,
}
export type Progress = typeof IDLE

class Refused extends Error {
  problem: Problem
  constructor(problem: Problem) {
    super(problem.detail)
    this.problem = problem
  }
}
const problemOf = (error: unknown): Problem => // fetch fails alike for CORS and network
  error instanceof Refused ? error.problem : { kind: 'unreachable', detail: String(error) }

async function call(to: Options, method: string, path: string, more: RequestInit = {}) {
  const token = await to.getAccessToken() // each time: a long run outlives an access token
  if (!token) throw new Refused({ kind: 'session', detail: 'Not signed in.' })
  const headers = {
    Authorization: `Bearer ${token}`,
    Accept: 'application/x-ndjson',
    'Content-Type': 'application/json',
  }
  const url = `${to.baseUrl}/api/hikvision/${path}`
  const answer = await fetch(url, { method, headers, cache: 'no-store', ...more })
  if (answer.ok) return answer
  const said = (await answer.json().catch(() => ({}))) as { detail?: string; run_id?: string }
  throw new Refused({
    kind: KINDS[answer.status] ?? (answer.status < 500 ? 'refused' : 'unavailable'),
    detail: said.detail ?? `HTTP ${answer.status}`,
    retryAfterS: Number(answer.headers.get('Retry-After')) || 60, // a proxy's refusal may not say
    ...(said.run_id && { runId: said.run_id }),
  })
}

async function* linesOf(body: ReadableStream<Uint8Array> | null) {
  if (!body) return
  const [reader, decoder] = [body.getReader(), new TextDecoder()]
  for (let rest = ''; ; ) {
    const silence = setTimeout(() => void reader.cancel(), SILENCE_MS) // it pings every 10 s
    const { done, value } = await reader.read().finally(() => clearTimeout(silence))
    if (done) return
    const lines = (rest + decoder.decode(value, { stream: true })).split('\n') // may halve an ș
    rest = lines.pop() ?? ''
    for (const line of lines) yield JSON.parse(line) as Line
  }
}

type News = AsyncGenerator<Partial<Progress>, void>

/** Press a button, and yield what is new until the run has ended, by stream or by asking. */
async function* news(to: () => Options, path: string, body: object, signal: AbortSignal): News {
  let { runId, summary, results } = IDLE
  try {
    const answer = await call(to(), 'POST', path, { body: JSON.stringify(body), signal })
    for await (const line of linesOf(answer.body)) {
      if (line.type === 'start') {
        runId = line.run_id
        yield { runId, total: line.total }
      } else if (line.type === 'result') {
        summary = { ...summary, [line.status]: summary[line.status] + 1 }
        results = [...results, line].slice(-RESULTS_KEPT)
        yield { done: line.done, summary, results }
      } else if (line.type === 'amended') {
        results = [...results, line].slice(-RESULTS_KEPT) // the sums come with the end
        yield { results }
      } else if (line.type === 'end') {
        yield { summary: line.summary, stoppedBecause: line.stopped_because }
        return
      }
    }
    if (!runId) throw new Error('The connection was cut before the run began.')
  } catch (error) {
    const going = problemOf(error).runId // 409: another press's run
    if (going) yield { runId: (runId = going), following: true }
    if (!runId) throw error
  }
  for (let failedPolls = 0; ; await new Promise((resolve) => setTimeout(resolve, POLL_MS))) {
    signal.throwIfAborted()
    try {
      const run = (await (await call(to(), 'GET', `runs/${runId}`, { signal })).json()) as Run
      failedPolls = 0
      yield { done: run.done, total: run.total, summary: run.summary }
      if (!run.result) continue
      const all = run.result.results?.flatMap(({ per_device, ...employee }) =>
        per_device.map((on) => ({ ...employee, ...on })),
      )
      results = all?.slice(-RESULTS_KEPT) ?? results
      yield { stoppedBecause: run.result.stopped_because, results }
      return
    } catch (error) {
      const passing = ['unreachable', 'unavailable'].includes(problemOf(error).kind)
      if (!passing || ++failedPolls === MAX_FAILED_POLLS) throw error
    }
  }
}

/** One run at a time, watched; use one hook for each button that may be pressed beside others. */
export function useHikvisionSync(options: Options) {
  const [shown, show] = useState(IDLE)
  const now = useRef(IDLE) // `shown` follows it ten times a second, however fast lines come
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined)
  const watch = useRef<AbortController | null>(null)
  const latest = useRef(options)
  useEffect(() => {
    latest.current = options
  })
  useEffect(() => {
    show(now.current)
    return () => { // unmounted: the watching ends, the run goes on at the server
      watch.current?.abort()
      clearTimeout(timer.current)
      watch.current = null
      timer.current = undefined
      now.current = IDLE
    }
  }, [])

  const tell = (more: Partial<Progress>) => {
    now.current = { ...now.current, ...more }
    timer.current ??= setTimeout(() => {
      timer.current = undefined
      show(now.current)
    }, SHOW_MS)
  }
  const press = async (path: string, body: object) => {
    if (watch.current) return
    const { signal } = (watch.current = new AbortController())
    let last: Partial<Progress> = { state: 'done' }
    tell({ ...IDLE, state: 'running' })
    try {
      for await (const more of news(() => latest.current, path, body, signal)) {
        if (!signal.aborted) tell(more)
      }
    } catch (error) {
      last = { state: 'error', problem: problemOf(error) }
    }
    if (signal.aborted) return
    watch.current = null
    tell({ ...last, stopping: false })
  }
  const stop = async () => { // the pair in hand is still finished
    const { current } = watch
    if (!current || !now.current.runId) return
    tell({ stopping: true })
    await call(latest.current, 'DELETE', `runs/${now.current.runId}`).catch((error: unknown) => {
      if (current === watch.current) tell({ stopping: false, problem: problemOf(error) })
    })
  }

  return {
    ...shown,
    stop,
    syncAll: () => press('sync-all-to-all-devices', {}),
    syncEmployee: (id: string) => press('sync-angajat-all-devices', { angajat_id: id }),
    syncPhoto: (id: string) => press('sync-angajat-photo-only', { angajat_id: id }),
  }
}
