// The page of the shop: it lists products and orders, and places orders, through /api. It keeps nothing.

const price = new Intl.NumberFormat(undefined, { style: "currency", currency: "EUR" });
const names = new Map(); // of products, by ID

// ask sends a request and shows which way its answer came.
async function ask(path, options) {
  const response = await fetch("/api/" + path, options);
  const answer = await response.json().catch(() => ({ error: `the door says ${response.status}` }));
  if (!response.ok) throw new Error(answer.error);
  document.getElementById("way").replaceChildren(...[
    ["door", answer.door], ["api", answer.api], ["data", answer.data],
  ].map(([tier, who]) => element("li", `${tier}: ${who}`)));
  return answer;
}

// order places one order. Its key is made once: a second try under the same key orders nothing more.
async function order(product) {
  const key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
  const request = { method: "POST", headers: { "Content-Type": "application/json", "Idempotency-Key": key }, body: JSON.stringify({ product, quantity: 1 }) };
  try {
    await ask("orders", request);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // an answer; only a broken connection is tried again
    await ask("orders", request);
  }
}

async function showProducts() {
  const { products } = await ask("products");
  document.getElementById("products").replaceChildren(...products.map((p) => {
    names.set(p.id, p.name);
    const button = element("button", "Order");
    button.setAttribute("aria-label", `Order ${p.name}`);
    button.addEventListener("click", () => guard(async () => {
      button.disabled = true;
      try {
        await order(p.id);
        await showOrders();
      } finally {
        button.disabled = false;
      }
    }));
    const cell = element("td");
    cell.append(button);
    return row(element("td", p.name), number(price.format(p.price / 100)), cell);
  }));
}

async function showOrders() {
  const { orders } = await ask("orders");
  document.getElementById("orders").replaceChildren(...orders.map((o) => row(
    number(o.id), element("td", names.get(o.product) ?? o.product), number(o.quantity), element("td", new Date(o.at).toLocaleString()))));
}

// guard says on the page what went wrong, and takes it back when all is well.
async function guard(action) {
  const trouble = document.getElementById("trouble");
  try {
    await action();
    trouble.hidden = true;
  } catch (error) {
    trouble.textContent = `That did not work: ${error.message}`;
    trouble.hidden = false;
  }
}

function element(tag, text = "") {
  const e = document.createElement(tag);
  e.textContent = text;
  return e;
}

function number(text) {
  const cell = element("td", text);
  cell.className = "number";
  return cell;
}

function row(...cells) {
  const tr = document.createElement("tr");
  tr.append(...cells);
  return tr;
}

guard(async () => {
  await showProducts();
  await showOrders();
});
