import { StrictMode, type SubmitEvent, useState } from 'react'
import { createRoot } from 'react-dom/client'
import { type Employee, EmployeeRow } from './EmployeeRow'
import { SyncAllButton } from '../../../receiver/react/SyncAllButton'

const query = new URLSearchParams(location.search)
const config = (name: string) => query.get(name) ?? ''

interface Session {
  access_token: string
  user: { email: string }
}

async function signIn(email: string, password: string): Promise<Session | null> {
  const answer = await fetch(`${config('supabase')}/auth/v1/token?grant_type=password`, {
    method: 'POST',
    headers: { apikey: config('key'), 'Content-Type': 'application/json' },
    body: JSON.stringify({ email, password }),
  })
  return answer.ok ? ((await answer.json()) as Session) : null
}

async function rows<Row>(session: Session, query: string): Promise<Row[]> {
  const answer = await fetch(`${config('supabase')}/rest/v1/${query}`, {
    headers: { apikey: config('key'), Authorization: `Bearer ${session.access_token}` },
  })
  return answer.ok ? ((await answer.json()) as Row[]) : []
}

function SignIn({ onSession }: { onSession: (session: Session) => void }) {
  const [refused, setRefused] = useState(false)
  const submit = async (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    const form = new FormData(event.currentTarget)
    const session = await signIn(form.get('email') as string, form.get('password') as string)
    setRefused(session === null)
    if (session) onSession(session)
  }
  return (
    <form onSubmit={submit}>
      <label>
        E-mail <input name="email" type="email" autoComplete="username" required />
      </label>
      <label>
        Parolă <input name="password" type="password" autoComplete="current-password" required />
      </label>
      <button type="submit">Autentificare</button>
      {refused && <p role="alert">E-mail sau parolă greșite.</p>}
    </form>
  )
}

function Page() {
  const [session, setSession] = useState<Session | null>(null)
  const [devices, setDevices] = useState<{ id: string; nume: string }[]>([])
  const [employees, setEmployees] = useState<Employee[]>([])
  const [elsewhere, setElsewhere] = useState(false)
  const begin = async (begun: Session) => {
    setDevices(await rows(begun, 'dispozitive_pontaj?select=id,nume'))
    setEmployees(await rows(begun, 'angajati?select=id,nume,prenume&order=nume'))
    setSession(begun)
  }
  if (!session) return <SignIn onSession={begin} />
  const receiver = { baseUrl: config('receiver'), getAccessToken: () => session.access_token }
  return (
    <>
      <nav>
        <span>{session.user.email}</span>
        <button type="button" onClick={() => setElsewhere(!elsewhere)}>
          {elsewhere ? 'Terminale' : 'Pontaj'}
        </button>
      </nav>
      {elsewhere ? (
        <p>Aici nu se sincronizează nimic.</p>
      ) : (
        <>
          <SyncAllButton
            {...receiver}
            deviceNames={Object.fromEntries(devices.map(({ id, nume }) => [id, nume]))}
          />
          <ul className="employees">
            {employees.map((employee) => (
              <EmployeeRow key={employee.id} employee={employee} {...receiver} />
            ))}
          </ul>
        </>
      )}
    </>
  )
}

createRoot(document.getElementById('root') as HTMLElement).render(
  <StrictMode>
    <main>
      <h1>Terminale de pontaj</h1>
      <Page />
    </main>
  </StrictMode>,
)
