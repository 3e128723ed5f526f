import { type Problem, useHikvisionSync } from './useHikvisionSync'

const MESSAGES: Record<Problem['kind'], (problem: Problem) => string> = {
  session: () => 'Sesiunea a expirat, autentifică-te din nou.',
  forbidden: () => 'Contul tău nu are dreptul să pornească sincronizarea.',
  too_often: ({ retryAfterS = 60 }) =>
    `Prea multe apăsări. Încearcă din nou peste ${retryAfterS} s.`,
  refused: (problem) => `Sincronizarea nu a pornit: ${problem.detail}`,
  unavailable: (problem) => `Serviciul de sincronizare nu poate lucra acum: ${problem.detail}`,
  unreachable: () => 'Serviciul de sincronizare nu poate fi contactat. Verifică rețeaua.',
}

export interface SyncAllButtonProps {
  baseUrl: string
  getAccessToken: () => Promise<string | null> | string | null
  deviceNames?: Record<string, string> // by dispozitive_pontaj.id
}

export function SyncAllButton({ baseUrl, getAccessToken, deviceNames = {} }: SyncAllButtonProps) {
  const sync = useHikvisionSync({ baseUrl, getAccessToken })
  const { done, total, summary, problem } = sync
  const running = sync.state === 'running'
  const last = sync.results.at(-1)
  const fatal = summary.first_fatal?.replace(
    /^device (\S+)(?=:)/,
    (device, id: string) => deviceNames[id] ?? device,
  )
  return (
    <section className="sync" aria-busy={running}>
      <button type="button" onClick={sync.syncAll} disabled={running}>
        Sincronizează toți angajații
      </button>
      {running && (
        <button type="button" onClick={sync.stop} disabled={!sync.runId || sync.stopping}>
          {sync.stopping ? 'Se oprește…' : 'Oprește'}
        </button>
      )}
      {sync.following && running && <p>O sincronizare era deja pornită; o urmărim pe aceea.</p>}
      {(running || total > 0) && (
        <p className="progress">
          <progress aria-label="Progres" max={total || 1} {...(total > 0 && { value: done })} />
          <output>{total > 0 ? `${done} din ${total}` : 'Se pornește…'}</output>
        </p>
      )}
      {running && last && <p className="last">{last.name}</p>}
      {sync.state === 'done' && (
        <div className="toast" role="status">
          <strong>
            {done < total ? `Oprită după ${done} din ${total}.` : 'Sincronizare încheiată.'}
          </strong>
          <ul>
            <li>{summary.success} reușite</li>
            <li>{summary.partial} parțiale</li>
            <li>{summary.skipped} sărite</li>
            <li>{summary.fatal} eșuate</li>
          </ul>
          {sync.stoppedBecause}
        </div>
      )}
      {fatal && <p role="alert">{fatal}</p>}
      {problem && <p role="alert">{MESSAGES[problem.kind](problem)}</p>}
    </section>
  )
}
